"""The training state of one trial apart from its tensors: data order, learning-rate schedule, best epoch, early stopping.

Each trial has its own state, and all its random numbers come from its own seed.

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
    """State of one trial that is being trained. Only the engine changes it, after a step or at the end of an epoch."""

    trial: Trial
    method: Method
    data: TaskData
    # Parameter values [P] after the best epoch. Before there is one: the values at the start of the last phase; during the first
    # of two phases, the trial's initial values.
    best: Tensor
    # Completed epochs.
    epoch: int = 0
    # Completed optimiser steps, over all epochs.
    step: int = 0
    # One entry per completed epoch.
    progress: list[Progress] = field(default_factory=list)
    # When the current epoch began, seconds of `time.monotonic`.
    started: float = field(default_factory=time.monotonic)
    # (epoch, order of its examples). Kept for the epoch, because for large data sets drawing it takes longer than a step.
    _order: tuple[int, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.trial.batch_size)

    @property
    def phase_boundary_epoch(self) -> int:
        """Number of the last epoch of the first phase: half of the planned epochs, at least 1. It is 0 if there is one phase."""
        return max(1, self.trial.recipe.epochs // 2) if self.method.phases == 2 else 0

    @property
    def first_counted_epoch(self) -> int:
        """Number of the first epoch that may be the best one: it ends in the last phase, after `Method.target_step`."""
        start = self.phase_boundary_epoch
        total = (self.trial.recipe.epochs - start) * self.steps_per_epoch
        return start + max(1, math.ceil(self.method.target_step(total) / self.steps_per_epoch))

    @property
    def phase(self) -> range:
        """The numbers, from 0, of the steps in the next step's phase."""
        return self._phase_of(self.step)

    @property
    def epoch_is_over(self) -> bool:
        """Whether all steps of the current epoch are done and the epoch has not been evaluated yet."""
        return self.step == (self.epoch + 1) * self.steps_per_epoch

    @property
    def done(self) -> bool:
        """Whether training has ended: all epochs ran, the last `patience` epochs had no better score, or the loss is not finite.

        Patience does not end a trial before the first epoch that counts.
        """
        if not self.progress:
            return False
        last = self.progress[-1]
        waited = last.has_best and last.epoch - last.best_epoch >= self.trial.recipe.patience
        return self.epoch >= self.trial.recipe.epochs or last.diverged or waited

    @property
    def end_reason(self) -> str:
        """Why training ended: "diverged", "epochs" or "patience". Only meaningful if `done` is true."""
        if self.progress and self.progress[-1].diverged:
            return "diverged"
        return "epochs" if self.epoch >= self.trial.recipe.epochs else "patience"

    def batch(self) -> tuple[Split, np.ndarray]:
        """Returns the training split and the example indices of the next mini-batch.

        Each epoch has its own random order of examples; its last mini-batch may be smaller.
        """
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, permutation(len(self.data.train), self.trial.seed, "order", self.epoch)
        order = self._order[1]
        start = (self.step % self.steps_per_epoch) * self.trial.batch_size
        return self.data.train, order[start : start + self.trial.batch_size]

    def lr_scale(self) -> float:
        """Returns the learning rate of the next step as a fraction of the peak: linear warm-up, then linear decay to 0.

        The schedule starts anew with each phase.
        """
        return self._lr_scale_of(self.step)

    def _phase_of(self, step: int) -> range:
        boundary, end = (self.steps_per_epoch * e for e in (self.phase_boundary_epoch, self.trial.recipe.epochs))
        return range(boundary) if step < boundary else range(boundary, end)

    def _lr_scale_of(self, step: int) -> float:
        phase = self._phase_of(step)
        total, step = len(phase), step - phase.start
        warm = math.ceil(self.trial.recipe.warmup * total)
        if step < warm:
            return (step + 1) / warm
        return (total - step) / max(1, total - warm)

    def seed(self, use: str) -> int:
        """Returns the seed of the next step's random numbers for the purpose `use`, such as "noise"."""
        return derive(self.trial.seed, use, self.step)

    def random(self, use: str) -> np.random.Generator:
        """Returns a generator with that seed."""
        return np.random.default_rng(self.seed(use))

    def record(self, score: float, loss: float | None, memory_mib: float) -> Progress:
        """Append the progress of the epoch that just ended, and return it. The next epoch's time starts here.

        `score`: on the validation split, in percent points. `loss`: mean training loss, None if it is not finite.
        `memory_mib`: a peak of memory. The best epoch is the earliest with the highest score among those that count, none (0)
        before `first_counted_epoch`.
        """
        diverged = loss is None
        best_epoch, best_score = 0, 0.0
        if self.progress:
            best_epoch, best_score = self.progress[-1].best_epoch, self.progress[-1].best_score
        counts = not diverged and self.epoch >= self.first_counted_epoch
        if counts and (best_epoch == 0 or score > best_score):
            best_epoch, best_score = self.epoch, score
        now = time.monotonic()
        report = Progress(
            epoch=self.epoch,
            score=score,
            loss=loss,
            best_score=best_score,
            best_epoch=best_epoch,
            seconds=now - self.started,
            memory_mib=max([memory_mib, *(each.memory_mib for each in self.progress[-1:])]),
            diverged=diverged,
            lr=self.trial.lr * self._lr_scale_of(self.step - 1),
        )
        self.started = now
        self.progress.append(report)
        return report
