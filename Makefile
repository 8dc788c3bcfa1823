# make quickstart   a small search on the built-in sample, from nothing to a table of trials
# make test         all tests
# make lint         ruff
# make picture      the README's picture: the report of a quickstart, by chromium (.ci/browser)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test lint picture clean

quickstart: $(VENV)/installed models/sample.pt
	$(RUN) -m experiments run experiments/quickstart.yml
	@echo
	@echo "Next: your own pictures. README.md, 'The three uses', says how."

test: $(VENV)/installed
	$(RUN) -m pytest -m ""

lint: $(VENV)/installed
	$(RUN) -m ruff check .

picture: quickstart
	chromium --headless --no-sandbox --hide-scrollbars --virtual-time-budget=5000 --window-size=1400,1000 \
	    --screenshot=experiments/pages/quickstart.png $(CURDIR)/runs/_latest/*.html

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
