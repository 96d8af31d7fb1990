"""Manages one resident trial of an engine: restores its checkpoint, writes one after every epoch, reports epochs in order.

It uses neither Ray nor the other trials. The device worker performs the training steps.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from search_spaces.records import Ablation, Counts, Outcome, Progress, TestResult, Trial
from trainables.methods.lookup import make_method
from trainables.tasks.task_data import TaskData
from trainables.training.trial_state import TrialState
from trainables.worker import checkpoint
from trainables.worker.checkpoint_store import CheckpointStore, NotStored

log = logging.getLogger(__name__)


class TrialEngine(Protocol):
    """What trains trials: `Engine` many together, `PeftEngine` one of the library peft. `Engine` describes the methods."""

    @property
    def residents(self) -> list[str]: ...
    @property
    def graph_bytes(self) -> int: ...
    def add_trial(self, trial: Trial, data: TaskData) -> TrialState: ...
    def remove_trial(self, trial_id: str) -> None: ...
    def set_active(self, trial_ids: Sequence[str]) -> None: ...
    def zero_grad(self) -> None: ...
    def step(self) -> list[TrialState]: ...
    def test(self, trial_id: str) -> TestResult: ...
    def ablate(self, trial_id: str) -> Ablation | None: ...
    def counts(self, trial_id: str) -> Counts: ...
    def state(self, trial_id: str) -> tuple[TrialState, dict[str, Tensor]]: ...
    def restore(
        self, trial: Trial, data: TaskData, tensors: dict[str, Tensor], epoch: int, progress: Sequence[Progress]
    ) -> TrialState: ...


def mean_tokens(trial: Trial, data: TaskData) -> float:
    """Return the mean number of tokens of the trial's mini-batches, with the virtual tokens that its method adds."""
    added = make_method(trial.method, trial.settings).virtual_tokens
    return trial.batch_size * (len(data.train.ids) / len(data.train) + added)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The report of one epoch. The last one also holds the trial's outcome and, for a final, the result on the test split."""

    progress: Progress
    outcome: Outcome | None = None
    test: TestResult | None = None
    # What is wrong with the place of its checkpoints; "" if nothing is.
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "progress": self.progress.to_json(),
            "outcome": self.outcome.to_json() if self.outcome else None,
            "test": self.test.to_json() if self.test else None,
            **({"warning": self.warning} if self.warning else {}),
        }


class TrialRunner:
    """One resident trial. Its epochs are reported one by one; `num_requested` is the number of epochs requested so far."""

    def __init__(
        self,
        trial: Trial,
        engine: TrialEngine,
        data: TaskData,
        folder: Path,
        num_tokens: float,
        store: CheckpointStore | None = None,
    ):
        """`folder`: the trial's checkpoint folder. `num_tokens`: mean number of tokens of its mini-batches.

        `store`: where its checkpoints are kept, if no other node sees the folder.
        """
        self.trial, self.engine, self._folder, self._store = trial, engine, folder, store
        self.num_requested = self._num_reported = 0
        self._test: TestResult | None = None
        self._ablation: Ablation | None = None
        self._warning = ""
        self._state = self._add_to_engine(data)
        self._num_saved = len(self._state.progress)
        self.num_tokens = num_tokens

    def may_train(self, epochs_ahead: int) -> bool:
        """Return whether the trial has fewer than `num_requested` + `epochs_ahead` epochs so far, and is not done."""
        return not self._state.done and len(self._state.progress) < self.num_requested + epochs_ahead

    @property
    def has_report(self) -> bool:
        """True if a requested epoch has ended and has not been reported yet."""
        return self._num_reported < min(self.num_requested, len(self._state.progress))

    def finish_epoch(self) -> None:
        """Write a checkpoint if the last step ended an epoch; before that, test and ablate a final whose training has ended."""
        if self._num_saved < len(self._state.progress):
            if self._state.done and self.trial.phase == "final":
                self._test = self.engine.test(self.trial.id)
                self._ablation = self.engine.ablate(self.trial.id) if self.trial.ablated else None
            self._save()
            self._num_saved = len(self._state.progress)

    def next_report(self) -> Report:
        """Return the report of the next epoch. Epochs restored from a checkpoint are reported again."""
        state = self._state
        self._num_reported += 1
        progress = state.progress[self._num_reported - 1]
        warning, self._warning = self._warning, ""
        if not (state.done and self._num_reported == len(state.progress)):
            return Report(progress=progress, warning=warning)
        return Report(progress=progress, outcome=self._outcome(), test=self._test, warning=warning)

    def _add_to_engine(self, data: TaskData) -> TrialState:
        """Add the trial to the engine, from its checkpoint if there is a good one, and return its state."""
        if self._store:
            try:
                self._store.fetch(self.trial.id, self._folder)
            except NotStored as error:
                self._warning = f"it starts without its checkpoint: {error}"
        saved = checkpoint.read(self._folder, self.trial)
        if saved is not None:
            try:
                return self._restore(saved, data)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of any type: it depends on what is wrong with the content
                log.warning("checkpoint %s is not usable (%s); the trial starts again", self._folder, error)
        return self.engine.add_trial(self.trial, data)

    def _restore(self, saved: checkpoint.Checkpoint, data: TaskData) -> TrialState:
        tensors = dict(saved.tensors)
        if saved.done:  # such a checkpoint has only the values of the best epoch
            if self.trial.phase == "final" and saved.test is None:
                raise ValueError("it lacks the result on the test split")
            tensors["values"] = tensors["best"]
            tensors["moments"] = torch.zeros(2, *tensors["best"].shape)
        state = self.engine.restore(self.trial, data, tensors, saved.epoch, saved.progress)
        self._test, self._ablation = saved.test, saved.ablation
        return state

    def _save(self) -> None:
        state, tensors = self.engine.state(self.trial.id)
        if state.done:
            tensors = {n: t for n, t in tensors.items() if n in ("best", "keep")}
        saved = checkpoint.Checkpoint(
            epoch=state.epoch,
            done=state.done,
            progress=state.progress,
            tensors=tensors,
            test=self._test,
            ablation=self._ablation,
        )
        checkpoint.write(self._folder, self.trial, saved)
        if self._store:
            try:
                self._store.store(self.trial.id, self._folder)
                shutil.rmtree(self._folder, ignore_errors=True)  # it is fetched if it is needed again
            except NotStored as error:
                self._warning = f"it goes on, but its checkpoint was not kept: {error}"

    def _outcome(self) -> Outcome:
        """Return the outcome of a trial whose training has ended."""
        last, diverged = self._state.progress[-1], self._state.progress[-1].diverged
        final = self.trial.phase == "final"
        return Outcome(
            # A diverged search trial can never win. A diverged final counts with the parameters of its best epoch.
            state="FAILED" if diverged and not final else "DONE",
            reason=self._state.end_reason,
            epochs=last.epoch,
            best_epoch=last.best_epoch,
            best_score=last.best_score,
            metrics=self._test.metrics if self._test else {},
            collapsed=bool(self._test and self._test.collapsed),
            diverged=diverged,
            counts=self.engine.counts(self.trial.id),
            ablation=self._ablation,
        )
