# Every target works in a fresh clone: the ones that need packages make the virtual environment.
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv test lint types golden accuracy recordings docs package check

help:  ## Show this help
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

venv: $(BIN)/.installed  ## Make the virtual environment VENV (.venv) with all that the tests need

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

test: venv  ## Run the tests that need no GPU
	$(BIN)/python -m pytest -n $(WORKERS)

lint: venv  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## Check types
	$(BIN)/mypy

golden: venv  ## Rewrite the golden files from what the code prints now; read the diff before you commit
	$(BIN)/python -m pytest -q tests/golden --update-golden

accuracy: venv  ## Hold predictions against MEASUREMENTS=FILE.csv: docs/accuracy.md and the README
	$(BIN)/python benchmarks/accuracy.py $(MEASUREMENTS)

recordings: venv  ## Record the bundled models anew (minutes to hours; needs no GPU)
	$(BIN)/python benchmarks/make_recordings.py

docs: venv  ## Bring docs up to date with the code, and build the site into site/
	$(BIN)/python benchmarks/update_docs.py
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet 'mkdocs-material>=9.5'
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

package:  ## Build sdist and wheel in throwaway environments, and use what is installed from them
	$(PYTHON) benchmarks/check_package.py

check: lint types test  ## All that must pass before a commit
