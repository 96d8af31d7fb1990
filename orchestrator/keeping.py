"""Which checkpoints stay on disk: the last of each running trial, and the best of each cell."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.sweep import Sweep
from search_spaces.language import Cell


class Keeper:
    """Deletes a trial's checkpoint once its end is in the ledger, unless it is the best of its cell so far."""

    def __init__(self, sweep: Sweep, folder: Path):
        self._sweep, self._folder = sweep, folder
        found = ((cell, sweep.best_of(cell)) for cell in sweep.cells)
        self._best: dict[Cell, str] = {cell: best.trial.id for cell, best in found if best}

    def ended(self, trial_id: str) -> None:
        """Call after the trial's end is durable. Its cell's former best may go with it."""
        cell = self._sweep.entry(trial_id).trial.cell
        for candidate in {trial_id, self._best.get(cell, trial_id)}:
            if self._disposable(candidate):
                shutil.rmtree(self._folder / candidate, ignore_errors=True)
        best = self._sweep.best_of(cell)
        if best:
            self._best[cell] = best.trial.id

    def tidy(self) -> None:
        """Remove what an earlier driver left: checkpoints of ended trials that are not the best of their cell."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.suffix == ".new" or self._disposable(path.stem):
                    shutil.rmtree(path, ignore_errors=True)

    def _disposable(self, trial_id: str) -> bool:
        try:
            entry = self._sweep.entry(trial_id)
        except KeyError:
            return True  # no trial of this sweep
        best = self._sweep.best_of(entry.trial.cell)
        return entry.outcome is not None and (best is None or best.trial.id != trial_id)
