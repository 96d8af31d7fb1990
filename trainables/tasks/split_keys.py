"""Values of a column of the user's files by which rows are split: groups that must not be divided, or times.

Rows of one author, patient or thread resemble each other. If some are in train and some in test, the test score says how well a
model knows them, not how well it does on others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SplitKeys:
    """The values of the column by which the rows of a file are split, one per row.

    column: its name. groups: the values as texts. times: the values as numbers (dates as seconds since 1970, UTC), or () if rows
    with the same value form a group that has no order.
    """

    column: str
    groups: tuple[str, ...]
    times: tuple[float, ...] = ()

    def take(self, indices: Sequence[int]) -> SplitKeys:
        return replace(
            self,
            groups=tuple(self.groups[i] for i in indices),
            times=tuple(self.times[i] for i in indices) if self.times else (),
        )


def read_keys(path: Path, column: str, values: Sequence[Any], numbers: Sequence[int], are_times: bool) -> SplitKeys:
    """Return the keys of a file's rows. `numbers`: the number of each row in the file, for messages.

    Raises ValueError naming file, row and column for a value that is no text or number or, if `are_times`, no number or ISO 8601
    date, and for a file that mixes numbers and dates.
    """
    moments: list[float] = []
    kinds = set()
    for number, value in zip(numbers, values, strict=True):
        if not isinstance(value, str | int | float | date):
            raise ValueError(f"{path}: row {number}, column {column!r}: {value!r} is no text, number or date")
        if are_times:
            kind, moment = _moment(value)
            kinds.add(kind)
            if not math.isfinite(moment) or len(kinds) > 1:
                expected = (
                    "is no number or ISO 8601 date"
                    if len(kinds) == 1
                    else "is another kind of time than in the rows before"
                )
                raise ValueError(
                    f"{path}: row {number}, column {column!r}: {value!r} {expected}; write all times as numbers, or all as dates "
                    f"such as 2024-05-31 or 2024-05-31T17:30:00"
                )
            moments.append(moment)
    return SplitKeys(column=column, groups=tuple(str(value).strip() for value in values), times=tuple(moments))


def _moment(value: Any) -> tuple[str, float]:
    """Return ("number" or "date", the value as a number); the number is NaN if the value is neither."""
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return "date", _seconds(moment)
    try:
        return "number", math.nan if isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        pass
    try:
        return "date", _seconds(datetime.fromisoformat(value.strip()))
    except ValueError:
        return "number", math.nan


def _seconds(moment: datetime) -> float:
    """Return seconds since 1970. A time without a time zone counts as UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def key_notes(parts: Mapping[str, SplitKeys]) -> tuple[str, ...]:
    """Return sentences for the report: how the keys of "train", "validation" and "test" lie, and which examples share a group.

    Files that the user divided may share groups, or overlap in time; splits that are drawn here do not.
    """
    train = parts["train"]
    told = [_times_note(parts) if train.times else _groups_note(parts)]
    for name, part in parts.items():
        if name == "train":
            continue
        if train.times:
            early = sum(time < max(train.times) for time in part.times)
            if early:
                told.append(f"{early} of {len(part.times)} {name} examples are older than the newest train example")
        else:
            known = set(train.groups)
            shared = sum(group in known for group in part.groups)
            if shared:
                told.append(
                    f"{shared} of {len(part.groups)} {name} examples have a {train.column!r} that also occurs in train: the "
                    f"score may be too high for new ones"
                )
    return tuple(told)


def _groups_note(parts: Mapping[str, SplitKeys]) -> str:
    sizes = ", ".join(f"{name} {len(set(part.groups))}" for name, part in parts.items())
    column = parts["train"].column
    return f"rows with the same {column!r} stay together where a split is drawn; different values: {sizes}"


def _times_note(parts: Mapping[str, SplitKeys]) -> str:
    spans = (f"{name} {_at(part, min)} to {_at(part, max)}" for name, part in parts.items())
    return f"splits that are drawn follow the order of {parts['train'].column!r}: {', '.join(spans)}"


def _at(keys: SplitKeys, which: Callable[[Sequence[float]], float]) -> str:
    """Return the earliest or latest time as the file writes it."""
    return keys.groups[keys.times.index(which(keys.times))]
