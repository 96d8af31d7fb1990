# `make check` runs what CI runs, in the environment that is active.
PYTHON ?= python

.PHONY: check lint types contract test slow

check: lint types contract test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

contract:
	lint-imports

test:
	$(PYTHON) -m pytest --durations=15

# Whole sweeps in processes of their own, killed and continued; real tracking servers. Minutes.
slow:
	$(PYTHON) -m pytest -m slow
