# Shortcuts for development; `.ci/run` is what every change must pass.
.PHONY: check test-fast test reference docs

PYTHON ?= python3

check: ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test-fast: ## the quick tests: no processes, few models
	$(PYTHON) bootstrap.py test -m "not slow and not medium"

reference: ## the pages of docs/ that are generated from the code
	.venv/bin/python -m orchestrator.documentation

docs: ## the documentation site, in build/docs
	.venv/bin/python -m sphinx -W --keep-going -q -b html docs build/docs

test: ## all tests but the slow ones
	$(PYTHON) bootstrap.py test
