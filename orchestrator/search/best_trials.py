"""Which trial of each cell has the checkpoint that is kept."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.search.cell import TrialEntry
from search_spaces.language import Cell


class BestTrials:
    """By cell, the best final or, until one has ended, the best search trial, among those trained to the end in this sweep."""

    def __init__(self) -> None:
        self._by_cell: dict[Cell, TrialEntry] = {}

    def get(self, cell: Cell) -> TrialEntry | None:
        return self._by_cell.get(cell)

    def add(self, entry: TrialEntry) -> None:
        """Take a trial that ended into account. Of two equally good ones the first stays."""
        best = self._by_cell.get(entry.trial.cell)
        if _is_eligible(entry) and (best is None or _rank(entry) > _rank(best)):
            self._by_cell[entry.trial.cell] = entry

    def choose(self, cell: Cell, entries: Iterable[TrialEntry]) -> None:
        """Choose the best of these trials of the cell again, because some of its trials do not count any more."""
        self._by_cell.pop(cell, None)
        for entry in entries:
            self.add(entry)


def _is_eligible(entry: TrialEntry) -> bool:
    return entry.outcome is not None and entry.outcome.state == "DONE" and not entry.cached


def _rank(entry: TrialEntry) -> tuple[bool, float]:
    assert entry.outcome is not None
    return entry.trial.phase == "final", entry.outcome.best_score
