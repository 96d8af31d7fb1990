"""Trains one trial epoch by epoch in an engine of its own, checkpointing each epoch. Knows nothing of Ray.

A process keeps the frozen backbone between trials; a method that trains backbone weights gets a fresh one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from search_spaces.records import Counts, Outcome, Progress, TestResult, Trial
from trainables import checkpoint
from trainables.backbone import Backbone
from trainables.engine import Engine
from trainables.methods import METHODS
from trainables.models import Model, resolve
from trainables.slot import Slot
from trainables.tasks.contract import TaskData
from trainables.tasks.tokens import read


@dataclass(frozen=True, kw_only=True)
class Report:
    """An epoch's progress, and with the last one how the trial ended."""

    progress: Progress
    outcome: Outcome | None = None
    test: TestResult | None = None


class Runner:
    """`source`: model name or absolute directory; `data`: token file; `folder`: the trial's checkpoint folder."""

    def __init__(self, trial: Trial, source: str, data: Path, folder: Path, device: torch.device):
        self.trial, self._folder = trial, folder
        model = _model(source)
        if model.fingerprint != trial.weights:
            raise ValueError(
                f"model {source!r} on this node has other files ({model.fingerprint}) than the sweep's ({trial.weights})"
            )
        shares = METHODS[trial.method].shares_backbone
        self._engine = Engine(_shared(source, str(device)) if shares else Backbone.load(model, device))
        self._reported = 0
        self._slot, self._test = self._seat(read_data(data))
        self._counts: Counts = self._engine.counts(trial.id)

    def next(self) -> Report:
        """Train an epoch, unless a checkpoint holds one that was not reported yet, and report it."""
        slot = self._slot
        if self._reported == len(slot.progress):
            while not self._engine.step():
                pass
            if slot.done and self.trial.phase == "final":
                self._test = self._engine.test(self.trial.id)
            self._save()
        self._reported += 1
        progress = slot.progress[self._reported - 1]
        if not (slot.done and self._reported == len(slot.progress)):
            return Report(progress=progress)
        return Report(progress=progress, outcome=self._outcome(), test=self._test)

    def _seat(self, data: TaskData) -> tuple[Slot, TestResult | None]:
        saved = checkpoint.read(self._folder, self.trial)
        if saved is None:
            return self._engine.join(self.trial, data), None
        tensors = dict(saved.tensors)
        if "values" not in tensors:  # the trial was done: its best is all that is left, and all that is needed
            tensors["values"] = tensors["best"]
            tensors["moments"] = torch.zeros(2, *tensors["best"].shape)
        return self._engine.restore(self.trial, data, tensors, saved.epoch, saved.progress), saved.test

    def _save(self) -> None:
        slot, tensors = self._engine.state(self.trial.id)
        if slot.done:
            tensors = {n: t for n, t in tensors.items() if n in ("best", "keep")}
        state = checkpoint.Checkpoint(
            epoch=slot.epoch, done=slot.done, progress=slot.progress, tensors=tensors, test=self._test
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
        )


@lru_cache(maxsize=4)
def _model(source: str) -> Model:
    return resolve(source)


@lru_cache(maxsize=1)
def _shared(source: str, device: str) -> Backbone:
    return Backbone.load(_model(source), torch.device(device))


@lru_cache(maxsize=8)
def read_data(path: Path) -> TaskData:
    return read(path)
