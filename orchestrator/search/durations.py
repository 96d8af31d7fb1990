"""Estimates how long epochs and trials of a sweep take, from the seconds that its trials have reported."""

from __future__ import annotations

import re

from search_spaces.history import SweepHistory
from search_spaces.language import Cell

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Convert a duration such as "90m", "40h", "3600s" or "2d" to seconds. Raises ValueError if it is malformed or zero."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", text, re.ASCII)
    value = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not value:
        raise ValueError(f"{text[:80]!r}: must be a time above zero with its unit, such as 90m, 40h, 3600s or 2d")
    return value


class Durations:
    """Estimates, in seconds, for the cells of one sweep. They use what `history` contains at the time of the call."""

    def __init__(self, history: SweepHistory):
        self._history = history

    def epoch(self, cell: Cell) -> float:
        """Return the seconds of the slowest epoch of the cell, or of all cells if it has none yet; 0 if no cell has one."""
        found = self._history.slowest_epoch
        return found.get(cell) or max(found.values(), default=0.0)

    def whole(self, cell: Cell, epochs: int) -> float:
        """Return the seconds of the slowest trial of the cell that was trained to its last epoch.

        Without such a trial it is `epochs` times the slowest epoch of the cell, without any epoch the largest estimate of the
        other cells, and 0 if nothing has been measured.
        """
        own = self._own(cell, epochs)
        return own or max((self._own(other, epochs) for other in self._history.slowest_epoch), default=0.0)

    def _own(self, cell: Cell, epochs: int) -> float:
        return self._history.slowest_trial.get(cell) or epochs * self._history.slowest_epoch.get(cell, 0.0)
