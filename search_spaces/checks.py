"""Checks of names and of the types of fields, shared by the records of a space. Standard library only."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

# Names end up in paths, MLflow filters, tables and file names; this set is safe in all of them.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def check_name(kind: str, name: str) -> str:
    """Return `name`. Raises ValueError if it cannot serve as a file name and in a table; `kind` is for the message."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"{kind} name {name!r} is not usable: up to 80 letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    return name


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_text(value: object) -> bool:
    # Escape sequences would reach the terminal, line breaks the report's tables.
    return isinstance(value, str) and all(c.isprintable() or unicodedata.category(c) == "Zs" for c in value)


# For each type annotation of the records of a space: its check, and words for the message. Other types are checked elsewhere.
_TYPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a finite number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (is_text, "a text of one line"),
    "str | None": (lambda value: value is None or is_text(value), "a text of one line, or None"),
}


def check_types(where: str, record: Any) -> None:
    """Raises ValueError if a field of the dataclass `record` is not of its annotated type; `where` begins the message."""
    for declared in fields(record):
        good, allowed = _TYPES.get(str(declared.type), (lambda value: True, ""))
        value = getattr(record, declared.name)
        if not good(value):
            raise ValueError(f"{where}: {declared.name} = {value!r}: must be {allowed}")


def check_rules(where: str, record: object, rules: tuple[tuple[str, bool, str], ...]) -> None:
    """Raises ValueError for the first rule (name of a field, whether it is kept, what is allowed) that is broken."""
    for name, good, allowed in rules:
        if not good:
            raise ValueError(f"{where}: {name} = {getattr(record, name)!r}: must be {allowed}")


def checked_limit(where: str, value: object) -> int | dict[str, int]:
    """Return a limit of a number of examples: one number for all tasks, or a dict of tasks' names to numbers, sorted by name.

    Raises ValueError, starting with `where`, for anything else, and for a number other than 0 (all examples) below 20.
    """
    if not isinstance(value, Mapping):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{where} = {value!r}: must be a whole number, or a dict of tasks' names to whole numbers")
        if value != 0 and value < 20:
            raise ValueError(f"{where} = {value}: must be 0 (all) or at least 20")
        return value
    limits: dict[str, int] = {}
    for task in sorted(value, key=str):
        limit = checked_limit(f"{where}[{task!r}]", value[task])
        if not is_text(task) or not isinstance(limit, int):
            raise ValueError(f"{where}[{task!r}] = {limit!r}: a task's name and a whole number are needed")
        limits[task] = limit
    return limits or 0


@contextmanager
def naming(kind: str, name: str) -> Iterator[None]:
    """Put what a ValueError is about, such as "task 'mrpc': ", before its message."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{kind} {name!r}: {error}") from None
