"""A place in the engine and the trial that sits in it: its data order, schedule, best epoch and early stopping.

Nothing here is shared with other slots; everything random comes from the trial's own seed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from search_spaces.records import Progress, TestResult, Trial
from trainables.methods.base import Method
from trainables.seeds import derive, permutation
from trainables.tasks.task_data import Split, TaskData


@dataclass(kw_only=True)
class TrialState:
    """`best` is the trial's row of parameters [P] after its best epoch, before the first one its start.

    Of a method of two phases only epochs of the second one count: until it begins `best` is the trial's start.
    """

    trial: Trial
    method: Method
    data: TaskData
    best: Tensor
    epoch: int = 0
    step: int = 0
    progress: list[Progress] = field(default_factory=list)
    test: TestResult | None = None
    started: float = field(default_factory=time.monotonic)
    # The epoch's order of examples, drawn in its first step: of many examples it takes longer than a step.
    _order: tuple[int, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.trial.batch_size)

    @property
    def turn(self) -> int:
        """The epoch that ends the first of two phases: half of the planned ones, at least one. 0 with one phase."""
        return max(1, self.trial.recipe.epochs // 2) if self.method.phases == 2 else 0

    @property
    def phase(self) -> range:
        """The steps of the phase in which the next step lies."""
        turn, end = (self.steps_per_epoch * epochs for epochs in (self.turn, self.trial.recipe.epochs))
        return range(turn) if self.step < turn else range(turn, end)

    @property
    def epoch_is_over(self) -> bool:
        """Trained to the end of an epoch that is not closed yet."""
        return self.step == (self.epoch + 1) * self.steps_per_epoch

    @property
    def done(self) -> bool:
        """All epochs run, no better epoch for `patience` epochs, or a loss that is not finite any more."""
        if not self.progress:
            return False
        last = self.progress[-1]
        waited = last.epoch - last.best_epoch >= self.trial.recipe.patience
        return self.epoch >= self.trial.recipe.epochs or last.diverged or (waited and self.epoch > self.turn)

    @property
    def end_reason(self) -> str:
        if self.progress and self.progress[-1].diverged:
            return "diverged"
        return "epochs" if self.epoch >= self.trial.recipe.epochs else "patience"

    def batch(self) -> tuple[Split, np.ndarray]:
        """The next mini-batch: a fresh order each epoch, the last batch of an epoch may be smaller."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, permutation(len(self.data.train), self.trial.seed, "order", self.epoch)
        order = self._order[1]
        start = (self.step % self.steps_per_epoch) * self.trial.batch_size
        return self.data.train, order[start : start + self.trial.batch_size]

    def pace(self) -> float:
        """Share of the peak learning rate in the next step: linear warm-up, then linear decay to 0 at the phase's last one."""
        total, step = len(self.phase), self.step - self.phase.start
        warm = math.ceil(self.trial.recipe.warmup * total)
        if step < warm:
            return (step + 1) / warm
        return (total - step) / max(1, total - warm)

    def seed(self, use: str) -> int:
        """The trial's own seed for something that is drawn in the next step."""
        return derive(self.trial.seed, use, self.step)

    def random(self, use: str) -> np.random.Generator:
        return np.random.default_rng(self.seed(use))

    def record(self, score: float, loss: float | None, memory_mib: float) -> Progress:
        """Close an epoch; returns what to report. The first best epoch wins ties; each phase has its own."""
        diverged = loss is None
        best_epoch, best_score = 0, 0.0
        # What diverges in its first phase has nothing that could be kept.
        if self.epoch not in (1, self.turn + 1) and not (diverged and self.epoch <= self.turn):
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
