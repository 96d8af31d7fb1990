"""Which checkpoints stay on disk: the last of each running trial, and the best of each cell."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.sweep import Sweep


class Keeper:
    """Deletes a trial's checkpoint once its end is in the ledger, unless it is the best of its cell so far."""

    def __init__(self, sweep: Sweep, folder: Path):
        self._sweep, self._folder = sweep, folder

    def ended(self, trial_id: str) -> None:
        """Call after the trial's end is durable. Its cell's former best may go with it."""
        for entry in self._sweep.cells[self._sweep.entry(trial_id).trial.cell].entries:
            if self._disposable(entry.trial.id):
                shutil.rmtree(self._folder / entry.trial.id, ignore_errors=True)

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
