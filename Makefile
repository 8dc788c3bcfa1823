# make quickstart   run a small search on the built-in sample, from an empty checkout to a table of trials
# make test         run all tests
# make gpu-check    check Salon on this machine's GPU, in at most six minutes, with a table at the end
# make lint         run ruff
# make audit        list known vulnerabilities of the packages in constraints.txt (pip-audit, osv.dev)
# make picture      make the README's pictures: before and after, by the drafts of `experiments.answer sizes`, and
#                   the page of a quickstart, taken with chromium (.ci/browser)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

INSTALL := $(RUN) -m pip install --quiet -c constraints.txt -e

.PHONY: quickstart test gpu-check lint audit picture clean environment test-environment sample-judge

# What would stop the installation is said here: an error in a recipe would be a line for each make above it, too.
ifeq ($(wildcard $(VENV)/installed)$(filter clean,$(MAKECMDGOALS)),)
    REFUSED := $(shell \
        $(PYTHON) -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))" 2>/dev/null || \
        { echo "Salon needs Python 3.10 or newer with its venv module, as '$(PYTHON)' or by make PYTHON=..."; exit; }; \
        line=$$($(PYTHON) -m experiments.nni_adapter.place 2>&1) || echo "$$line")
    ifneq ($(REFUSED),)
        $(error $(REFUSED))
    endif
endif

# Make $(1) under a lock: two makes in one checkout would write the same files.
define locked
@$(MAKE) --question $(1) || { \
    flock --nonblock --conflict-exit-code 75 Makefile $(MAKE) --no-print-directory $(1); code=$$?; \
    [ $$code -ne 75 ] && exit $$code; \
    echo "another make is at work here: waiting for it"; \
    flock Makefile $(MAKE) --no-print-directory $(1); }
endef

quickstart: sample-judge
	$(RUN) -m experiments run experiments/quickstart.yml
	@echo
	@echo "Next: your own pictures. README.md says how."

test: test-environment
	$(RUN) -m pytest -m "" -n 3 --dist worksteal --max-worker-restart 0  # the slow ones wait for NNI

gpu-check: test-environment
	$(RUN) -m experiments.gpu_check

lint: test-environment
	$(RUN) -m ruff check .

# osv.dev, because pip-audit's default says "none known" of a version that a mirror of PyPI does not describe.
AUDIT := $(VENV)/audit/bin/python
audit: environment
	@if ! $(RUN) -c "import requests; requests.head('https://api.osv.dev', timeout=10)" 2>/dev/null; then \
	    echo "audit: skipped, https://api.osv.dev cannot be reached from here"; \
	else \
	    $(RUN) -m venv $(VENV)/audit && $(AUDIT) -m pip install --quiet pip-audit && \
	    $(AUDIT) -m pip_audit --vulnerability-service osv --disable-pip --no-deps -r constraints.txt; \
	fi

picture: quickstart
	$(RUN) -m experiments.answer figures --drafts runs/answer
	chromium --headless --no-sandbox --hide-scrollbars --virtual-time-budget=5000 --window-size=1400,1000 \
	    --screenshot=experiments/pictures/quickstart.png $(CURDIR)/runs/_latest/*.html

environment:
	$(call locked,$(VENV)/installed)

test-environment:
	$(call locked,$(VENV)/installed-dev)

sample-judge:
	$(call locked,models/sample.pt)

models/sample.pt: | $(VENV)/installed
	$(RUN) -m judge train --data sample --size sketch --weights none --epochs 18 --out $@

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) *.egg-info
