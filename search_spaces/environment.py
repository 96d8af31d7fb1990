"""Changes of this process's environment variables that are put back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def changed(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or remove those whose value is None; afterwards each of them is what it was before."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def unless_set(values: Mapping[str, str]) -> dict[str, str]:
    """Those of the values whose variables the user has not set."""
    return {name: value for name, value in values.items() if name not in os.environ}


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
