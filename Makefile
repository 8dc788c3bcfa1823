# make quickstart   a small search on the built-in sample, from nothing to a table of trials
# make test         all tests
# make lint         ruff
# make audit        known weaknesses of the packages in constraints.txt, by pip-audit and osv.dev
# make picture      the README's picture: the report of a quickstart, by chromium (.ci/browser)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test lint audit picture clean environment sample-judge

# One make at a time makes $(1): two in one checkout would write the same files.
define alone
@$(MAKE) --question $(1) || { \
    flock --nonblock --conflict-exit-code 75 Makefile $(MAKE) --no-print-directory $(1); code=$$?; \
    [ $$code -ne 75 ] && exit $$code; \
    echo "another make is at work here: waiting for it"; \
    flock Makefile $(MAKE) --no-print-directory $(1); }
endef

quickstart: sample-judge
	$(RUN) -m experiments run experiments/quickstart.yml
	@echo
	@echo "Next: your own pictures. README.md, 'The three uses', says how."

test: environment
	$(RUN) -m pytest -m "" -n 3 --dist worksteal --max-worker-restart 0  # the slow ones wait for NNI

lint: environment
	$(RUN) -m ruff check .

# From osv.dev: of a version that a mirror of PyPI does not describe, pip-audit's default says "none known".
AUDIT := $(VENV)/audit/bin/python
audit: environment
	@if ! $(RUN) -c "import requests; requests.head('https://api.osv.dev', timeout=10)" 2>/dev/null; then \
	    echo "audit: skipped, https://api.osv.dev cannot be reached from here"; \
	else \
	    $(RUN) -m venv $(VENV)/audit && $(AUDIT) -m pip install --quiet pip-audit && \
	    $(AUDIT) -m pip_audit --vulnerability-service osv --disable-pip --no-deps -r constraints.txt; \
	fi

picture: quickstart
	chromium --headless --no-sandbox --hide-scrollbars --virtual-time-budget=5000 --window-size=1400,1000 \
	    --screenshot=experiments/pictures/quickstart.png $(CURDIR)/runs/_latest/*.html

environment:
	$(call alone,$(VENV)/installed)

sample-judge:
	$(call alone,models/sample.pt)

models/sample.pt: | $(VENV)/installed
	$(RUN) -m judge train --data sample --size sketch --weights none --epochs 18 --out $@

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))" 2>/dev/null || \
	    { echo "Salon needs Python 3.10 or newer with its venv module, as '$(PYTHON)' or by make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) *.egg-info
