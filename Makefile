# Shortcuts for development; `.ci/run` is what every change must pass.
.PHONY: check test-fast test

PYTHON ?= python3

check: ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy orchestrator actors jobs

test-fast: ## the unit tests that take seconds
	$(PYTHON) bootstrap.py test tests/unit -m "not slow and not medium"

test: ## all tests but the slow ones
	$(PYTHON) bootstrap.py test
