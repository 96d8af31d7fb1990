"""Temporary changes of this process's environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def changed(values: Mapping[str, str | None]) -> Iterator[None]:
    """Context in which these variables are set, or removed if the value is None. On leaving, the former values are restored."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def unless_set(values: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of `values` whose variables are not set in the environment."""
    return {name: value for name, value in values.items() if name not in os.environ}


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
