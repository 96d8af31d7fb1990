"""Which final of each cell is the best one: the final whose checkpoint is kept by default."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.search.cell import TrialEntry
from search_spaces.language import Cell


class BestFinals:
    """By cell, the final with the best validation score among those that this sweep trained itself. The test score has no say."""

    def __init__(self) -> None:
        self._by_cell: dict[Cell, TrialEntry] = {}

    def get(self, cell: Cell) -> TrialEntry | None:
        return self._by_cell.get(cell)

    def add(self, entry: TrialEntry) -> None:
        """Take a trial that ended into account. Of two equally good finals the first stays."""
        best = self._by_cell.get(entry.trial.cell)
        if has_model(entry) and (best is None or _score(entry) > _score(best)):
            self._by_cell[entry.trial.cell] = entry

    def choose(self, cell: Cell, entries: Iterable[TrialEntry]) -> None:
        """Choose the best of these trials of the cell again, because some of its trials do not count any more."""
        self._by_cell.pop(cell, None)
        for entry in entries:
            self.add(entry)


def has_model(entry: TrialEntry) -> bool:
    """Return whether the trial is a final that this sweep trained to its end, so that its checkpoint holds a finished model."""
    ended = entry.outcome
    return entry.trial.phase == "final" and ended is not None and ended.state == "DONE" and not entry.cached


def _score(entry: TrialEntry) -> float:
    assert entry.outcome is not None
    return entry.outcome.best_score
