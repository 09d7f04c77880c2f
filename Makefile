# Shortcuts for development; `.ci/run` is what every change must pass.
.PHONY: check test-fast test

PYTHON ?= python3

check: ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy orchestrator actors jobs

test-fast: ## the quick tests: no processes, few models
	$(PYTHON) bootstrap.py test -m "not slow and not medium"

test: ## all tests but the slow ones
	$(PYTHON) bootstrap.py test
