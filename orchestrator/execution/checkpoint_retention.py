"""Decides which checkpoints stay on disk: those of running trials, and those of finals that the option --keep asks for."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Container
from pathlib import Path

from safetensors import SafetensorError, safe_open

from orchestrator.run_options import Keep
from orchestrator.search.best_finals import has_model
from orchestrator.search.sweep import Sweep
from search_spaces.events import CheckpointMeasured
from search_spaces.language import Cell

log = logging.getLogger(__name__)


class CheckpointRetention:
    """Deletes a trial's checkpoint once its end is in the ledger, unless it is a final's that is kept.

    `keep` says which finals are kept: "best" the best one of each cell so far, by validation score; "all" every one; "none" none.
    Checkpoints of search trials are never kept. The size of the checkpoint of a trial with state DONE is recorded before, with
    `record`, which appends an event to the ledger. `measured` are the ids of the trials for which an earlier driver has done
    this.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        record: Callable[[CheckpointMeasured], None] = lambda event: None,
        measured: Container[str] = (),
        keep: Keep = "best",
    ):
        self._sweep, self._folder, self._record, self._measured = sweep, folder, record, measured
        self._keep = keep
        found = ((cell, sweep.best_final(cell)) for cell in sweep.space.cells)
        self._best: dict[Cell, str] = {cell: best.trial.id for cell, best in found if best}

    def trial_ended(self, trial_id: str) -> None:
        """Delete the checkpoint of an ended trial, or if it is now the best of its cell, that of the former best final."""
        self._measure(trial_id)
        cell = self._sweep.entry(trial_id).trial.cell
        for candidate in {trial_id, self._best.get(cell, trial_id)}:
            if self._disposable(candidate):
                shutil.rmtree(self._folder / candidate, ignore_errors=True)
        best = self._sweep.best_final(cell)
        if best:
            self._best[cell] = best.trial.id

    def tidy(self) -> None:
        """Remove what an earlier driver left: unfinished checkpoints, and those of ended trials that are not kept.

        Sizes that it did not record any more, because it was killed between two records, are recorded before.
        """
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.suffix == "" and path.name not in self._measured:
                    self._measure(path.name)
                if path.suffix == ".new" or self._disposable(path.stem):
                    shutil.rmtree(path, ignore_errors=True)

    def _measure(self, trial_id: str) -> None:
        """Record the size of the checkpoint of a trial that is DONE."""
        path = self._folder / trial_id / "state.safetensors"
        try:
            outcome = self._sweep.entry(trial_id).outcome
        except KeyError:  # no trial of this sweep
            return
        if outcome and outcome.state == "DONE" and path.is_file():
            try:
                self._record(CheckpointMeasured(id=trial_id, bytes=path.stat().st_size, stored=_numbers(path)))
            except SafetensorError as error:
                log.warning("the size of checkpoint %s is not recorded, because it cannot be read (%s)", path, error)

    def _disposable(self, trial_id: str) -> bool:
        try:
            entry = self._sweep.entry(trial_id)
        except KeyError:
            return True  # no trial of this sweep
        if entry.outcome is None:
            return False
        if not has_model(entry) or self._keep == "none":
            return True
        best = self._sweep.best_final(entry.trial.cell)
        return self._keep == "best" and (best is None or best.trial.id != trial_id)


def _numbers(path: Path) -> int:
    """Return the number of values in a checkpoint. For a finished trial these are the parameters of its best epoch.

    Pruned weights are stored as zeros and counted.
    """
    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
