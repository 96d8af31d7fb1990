"""How long trials of a sweep take, by what its history holds. Knows no clock; seconds are those that trials reported."""

from __future__ import annotations

import re

from search_spaces.history import SweepHistory
from search_spaces.language import Cell

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Seconds of "90m", "40h", "3600s" or "2d". Raises ValueError for anything else, and for no time at all."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", text, re.ASCII)
    value = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not value:
        raise ValueError(f"{text[:80]!r}: must be a time above zero with its unit, such as 90m, 40h, 3600s or 2d")
    return value


class Durations:
    """What the cells of one sweep took so far; `history` may grow meanwhile."""

    def __init__(self, history: SweepHistory):
        self._history = history

    def epoch(self, cell: Cell) -> float:
        """Seconds of the cell's slowest epoch, of all cells' before it has one; 0 before there is any."""
        found = self._history.slowest_epoch
        return found.get(cell) or max(found.values(), default=0.0)

    def whole(self, cell: Cell, epochs: int) -> float:
        """Seconds of the cell's slowest trial that ran to its end.

        Before there is one: `epochs` times its slowest epoch. Before that: what the slowest other cell takes. 0 while nothing
        has been measured.
        """
        own = self._own(cell, epochs)
        return own or max((self._own(other, epochs) for other in self._history.slowest_epoch), default=0.0)

    def _own(self, cell: Cell, epochs: int) -> float:
        return self._history.slowest_trial.get(cell) or epochs * self._history.slowest_epoch.get(cell, 0.0)
