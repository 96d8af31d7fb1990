"""The training state of one trial beside its tensors: data order, learning-rate schedule, best epoch, early stopping.

Trials share none of it. All random numbers come from the trial's own seed.

Legend: P parameters of the trial.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from search_spaces.records import Progress, Trial
from trainables.methods.base import Method
from trainables.seeds import derive, permutation
from trainables.tasks.task_data import Split, TaskData


@dataclass(kw_only=True)
class TrialState:
    """Mutable; only the engine changes it, between and after steps."""

    trial: Trial
    method: Method
    data: TaskData
    # Parameter values [P] after the best epoch of the last phase; the initial values until that phase has an epoch.
    best: Tensor
    # Completed epochs.
    epoch: int = 0
    # Completed optimiser steps, over all epochs.
    step: int = 0
    # One entry per completed epoch.
    progress: list[Progress] = field(default_factory=list)
    # When the current epoch began, seconds of `time.monotonic`.
    started: float = field(default_factory=time.monotonic)
    # (epoch, its order of examples). Drawn once per epoch: for large data sets the permutation takes longer than a step.
    _order: tuple[int, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.trial.batch_size)

    @property
    def phase_boundary_epoch(self) -> int:
        """The last epoch of the first of two phases: half of the planned epochs, at least one. 0 for one phase."""
        return max(1, self.trial.recipe.epochs // 2) if self.method.phases == 2 else 0

    @property
    def phase(self) -> range:
        """The steps of the phase that the next step belongs to."""
        boundary, end = (self.steps_per_epoch * e for e in (self.phase_boundary_epoch, self.trial.recipe.epochs))
        return range(boundary) if self.step < boundary else range(boundary, end)

    @property
    def epoch_is_over(self) -> bool:
        """All steps of the current epoch are done, and it has not been evaluated yet."""
        return self.step == (self.epoch + 1) * self.steps_per_epoch

    @property
    def done(self) -> bool:
        """Training has ended: all epochs ran, `patience` epochs brought no better score, or the loss is not finite."""
        if not self.progress:
            return False
        last = self.progress[-1]
        waited = last.epoch - last.best_epoch >= self.trial.recipe.patience
        return (
            self.epoch >= self.trial.recipe.epochs
            or last.diverged
            or (waited and self.epoch > self.phase_boundary_epoch)
        )

    @property
    def end_reason(self) -> str:
        if self.progress and self.progress[-1].diverged:
            return "diverged"
        return "epochs" if self.epoch >= self.trial.recipe.epochs else "patience"

    def batch(self) -> tuple[Split, np.ndarray]:
        """(split, example indices) of the next mini-batch. Each epoch has its own order; its last batch may be smaller."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, permutation(len(self.data.train), self.trial.seed, "order", self.epoch)
        order = self._order[1]
        start = (self.step % self.steps_per_epoch) * self.trial.batch_size
        return self.data.train, order[start : start + self.trial.batch_size]

    def lr_scale(self) -> float:
        """Learning rate of the next step as a fraction of the peak: linear warm-up, then linear decay towards 0.

        Each phase has a schedule of its own.
        """
        total, step = len(self.phase), self.step - self.phase.start
        warm = math.ceil(self.trial.recipe.warmup * total)
        if step < warm:
            return (step + 1) / warm
        return (total - step) / max(1, total - warm)

    def seed(self, use: str) -> int:
        """The seed of the random stream `use` in the next step."""
        return derive(self.trial.seed, use, self.step)

    def random(self, use: str) -> np.random.Generator:
        """A generator for the random stream `use` in the next step."""
        return np.random.default_rng(self.seed(use))

    def record(self, score: float, loss: float | None, memory_mib: float) -> Progress:
        """Append the progress of the epoch that just ended, and return it.

        `loss`: mean training loss, None if it was not finite. `score`: on the validation split. Of equal scores the
        earlier epoch is the best one; each phase has a best epoch of its own.
        """
        diverged = loss is None
        best_epoch, best_score = 0, 0.0
        # A trial that diverges in its first phase keeps no epoch: only the second phase's parameters are a result.
        first = self.epoch in (1, self.phase_boundary_epoch + 1)
        if not first and not (diverged and self.epoch <= self.phase_boundary_epoch):
            best_epoch, best_score = self.progress[-1].best_epoch, self.progress[-1].best_score
        if not diverged and (best_epoch == 0 or score > best_score):
            best_epoch, best_score = self.epoch, score
        now = time.monotonic()
        report = Progress(
            epoch=self.epoch,
            score=score,
            loss=loss,
            best_score=best_score,
            best_epoch=best_epoch,
            seconds=now - self.started,
            memory_mib=memory_mib,
            diverged=diverged,
        )
        self.started = now
        self.progress.append(report)
        return report
