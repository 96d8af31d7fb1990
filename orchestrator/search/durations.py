"""How long trials take, told from the records of a ledger. Knows no clock; seconds are those that trials reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces.language import Cell
from search_spaces.records import Trial

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Seconds of "90m", "40h", "3600s" or "2d". Raises ValueError for anything else, and for no time at all."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", text, re.ASCII)
    value = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not value:
        raise ValueError(f"{text[:80]!r}: must be a time above zero with its unit, such as 90m, 40h, 3600s or 2d")
    return value


def spent(records: Iterable[Mapping[str, Any]]) -> float:
    """Seconds that drivers of this sweep have worked on it so far, each from its first record to its last."""
    total = start = last = 0.0
    for record in records:
        if record["event"] == "sweep":
            total, start = total + last - start, record["time"]
        last = record["time"]
    return total + last - start


class Durations:
    """What the cells of one sweep took so far. Feed it the ledger's records in order."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()):
        self._cells: dict[str, Cell] = {}
        self._spent: dict[str, float] = {}
        self._epoch: dict[Cell, float] = {}
        self._whole: dict[Cell, float] = {}
        self.note(records)

    def note(self, records: Iterable[Mapping[str, Any]]) -> None:
        for record in records:
            if record["event"] == "asked":
                self._cells[record["id"]] = Trial.from_json(record["trial"]).cell
            elif record["event"] == "progress":
                self._epoch_of(record["id"], record["progress"]["seconds"])
            elif record["event"] == "ended" and record["outcome"]["state"] == "DONE":
                cell = self._cells[record["id"]]
                self._whole[cell] = max(self._whole.get(cell, 0.0), self._spent.get(record["id"], 0.0))

    def epoch(self, cell: Cell) -> float:
        """Seconds of the cell's slowest epoch, of anybody's before it has one; 0 before there is any."""
        return self._epoch.get(cell) or max(self._epoch.values(), default=0.0)

    def whole(self, cell: Cell, epochs: int) -> float:
        """Seconds of the cell's slowest trial that ran to its end.

        Before there is one: all `epochs` at the pace of its slowest epoch. Before that: what the slowest other cell takes. 0
        while nothing has been measured.
        """
        own = self._own(cell, epochs)
        return own or max((self._own(other, epochs) for other in self._epoch), default=0.0)

    def _own(self, cell: Cell, epochs: int) -> float:
        return self._whole.get(cell) or epochs * self._epoch.get(cell, 0.0)

    def _epoch_of(self, trial_id: str, seconds: float) -> None:
        cell = self._cells[trial_id]
        self._spent[trial_id] = self._spent.get(trial_id, 0.0) + seconds
        self._epoch[cell] = max(self._epoch.get(cell, 0.0), seconds)
