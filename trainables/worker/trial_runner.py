"""A trial that lives in an engine: seated from its checkpoint, checkpointed after every epoch, reported in order.

Knows nothing of Ray, nor of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search_spaces.records import Ablation, Counts, Outcome, Progress, TestResult, Trial
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.training.engine import Engine
from trainables.training.trial_state import TrialState
from trainables.worker import checkpoint


def mean_tokens(trial: Trial, data: TaskData) -> float:
    """Tokens of the trial's batches, on average."""
    added = METHODS[trial.method](**trial.settings).virtual_tokens
    return trial.batch_size * (len(data.train.ids) / len(data.train) + added)


@dataclass(frozen=True, kw_only=True)
class Report:
    """An epoch's progress, and with the last one how the trial ended."""

    progress: Progress
    outcome: Outcome | None = None
    test: TestResult | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "progress": self.progress.to_json(),
            "outcome": self.outcome.to_json() if self.outcome else None,
            "test": self.test.to_json() if self.test else None,
        }


class TrialRunner:
    """`folder`: of the trial's checkpoint. `asked`: how many epochs somebody has asked to hear of."""

    def __init__(self, trial: Trial, engine: Engine, data: TaskData, folder: Path, tokens: float):
        self.trial, self.engine, self._folder = trial, engine, folder
        self.asked = self._reported = 0
        self._test: TestResult | None = None
        self._ablation: Ablation | None = None
        self._slot = self._seat(data)
        self._saved = len(self._slot.progress)
        self._counts: Counts = engine.counts(trial.id)
        # Of its batches, on average.
        self.tokens = tokens

    def wants(self, ahead: int) -> bool:
        """Whether it should train: epochs are asked for that do not exist, and `ahead` more."""
        return not self._slot.done and len(self._slot.progress) < self.asked + ahead

    @property
    def ready(self) -> bool:
        """Whether an epoch that was asked for waits to be taken."""
        return self._reported < min(self.asked, len(self._slot.progress))

    def keep_up(self) -> None:
        """After a step: when it ended an epoch, open the test split and ablate if that was a final's last, and save."""
        if self._saved < len(self._slot.progress):
            if self._slot.done and self.trial.phase == "final":
                self._test = self.engine.test(self.trial.id)
                self._ablation = self.engine.ablate(self.trial.id) if self.trial.ablated else None
            self._save()
            self._saved = len(self._slot.progress)

    def take(self) -> Report:
        """The next report; epochs that a checkpoint brought along are reported again."""
        slot = self._slot
        self._reported += 1
        progress = slot.progress[self._reported - 1]
        if not (slot.done and self._reported == len(slot.progress)):
            return Report(progress=progress)
        return Report(progress=progress, outcome=self._outcome(), test=self._test)

    def _seat(self, data: TaskData) -> TrialState:
        saved = checkpoint.read(self._folder, self.trial)
        if saved is None:
            return self.engine.add_trial(self.trial, data)
        self._test, self._ablation = saved.test, saved.ablation
        tensors = dict(saved.tensors)
        if "values" not in tensors:  # the trial was done: its best is all that is left, and all that is needed
            tensors["values"] = tensors["best"]
            tensors["moments"] = torch.zeros(2, *tensors["best"].shape)
        return self.engine.restore(self.trial, data, tensors, saved.epoch, saved.progress)

    def _save(self) -> None:
        slot, tensors = self.engine.state(self.trial.id)
        if slot.done:
            tensors = {n: t for n, t in tensors.items() if n in ("best", "keep")}
        state = checkpoint.Checkpoint(
            epoch=slot.epoch,
            done=slot.done,
            progress=slot.progress,
            tensors=tensors,
            test=self._test,
            ablation=self._ablation,
        )
        checkpoint.write(self._folder, self.trial, state)

    def _outcome(self) -> Outcome:
        last, diverged = self._slot.progress[-1], self._slot.progress[-1].diverged
        final = self.trial.phase == "final"
        return Outcome(
            # A diverged search trial can never win; a diverged final counts with what early stopping had kept.
            state="FAILED" if diverged and not final else "DONE",
            reason=self._slot.end_reason,
            epochs=last.epoch,
            best_epoch=last.best_epoch,
            best_score=last.best_score,
            metrics=self._test.metrics if self._test else {},
            collapsed=bool(self._test and self._test.collapsed),
            diverged=diverged,
            counts=self._counts,
            ablation=self._ablation,
        )
