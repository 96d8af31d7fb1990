# `make check` runs what CI runs, in the environment that is active: `make quick`, in minutes, and then the slow tests.
PYTHON ?= python

.PHONY: check quick lint types contract test slow

check: quick slow

quick: lint types contract test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

contract:
	lint-imports

# One process per core; tests of a file stay in one process and share its fixtures.
test:
	$(PYTHON) -m pytest -n logical --dist loadfile --durations=15

# Whole sweeps in processes of their own, killed and continued; real tracking servers. About a quarter of an hour on two cores.
# They depend on other processes and on the machine's load, so one that fails is run once more, alone, before it counts;
# the output says which were.
slow:
	PYTHON="$(PYTHON)" .ci/slow
