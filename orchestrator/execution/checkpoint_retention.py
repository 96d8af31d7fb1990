"""Decides which checkpoints stay on disk: those of running trials, and those of finals that the option --keep asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from orchestrator.run_options import Keep
from orchestrator.search.best_finals import has_model
from orchestrator.search.sweep import Sweep
from search_spaces.events import CheckpointMeasured
from search_spaces.language import Cell
from trainables.worker.checkpoint_store import KeptCheckpoints, NotStored

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
        kept: KeptCheckpoints,
        record: Callable[[CheckpointMeasured], None] = lambda event: None,
        measured: Container[str] = (),
        keep: Keep = "best",
    ):
        self._sweep, self._kept, self._record, self._measured = sweep, kept, record, measured
        self._keep = keep
        found = ((cell, sweep.best_final(cell)) for cell in sweep.space.cells)
        self._best: dict[Cell, str] = {cell: best.trial.id for cell, best in found if best}

    def trial_ended(self, trial_id: str) -> None:
        """Delete the checkpoint of an ended trial, or if it is now the best of its cell, that of the former best final."""
        cell = self._sweep.entry(trial_id).trial.cell
        with self._tolerant():
            self._measure(trial_id)
            for candidate in {trial_id, self._best.get(cell, trial_id)}:
                if self._disposable(candidate):
                    self._kept.delete(candidate)
        best = self._sweep.best_final(cell)
        if best:
            self._best[cell] = best.trial.id

    def tidy(self) -> None:
        """Remove what an earlier driver left: unfinished checkpoints, and those of ended trials that are not kept.

        Sizes that it did not record any more, because it was killed between two records, are recorded before.
        """
        with self._tolerant():
            self._kept.discard_unfinished()
            for trial_id in self._kept.trial_ids():
                if trial_id not in self._measured:
                    self._measure(trial_id)
                if self._disposable(trial_id):
                    self._kept.delete(trial_id)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Tell that the place of the checkpoints cannot be used, and go on: the next driver tidies up."""
        try:
            yield
        except NotStored as error:
            log.warning("%s", error)

    def _measure(self, trial_id: str) -> None:
        """Record the size of the checkpoint of a trial that is DONE."""
        try:
            outcome = self._sweep.entry(trial_id).outcome
        except KeyError:  # no trial of this sweep
            return
        if outcome and outcome.state == "DONE":
            try:
                size = self._kept.size(trial_id)
            except ValueError as error:
                log.warning(
                    "the size of checkpoint %s is not recorded, because it cannot be read (%s)", trial_id, error
                )
                return
            if size:
                self._record(CheckpointMeasured(id=trial_id, bytes=size[0], stored=size[1]))

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
