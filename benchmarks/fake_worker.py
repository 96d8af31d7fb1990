"""Device workers whose trials train nothing but have closed-form curves, so that everything around them can be measured.

Their processes and the mailbox are the real ones; only the engine is missing.
"""

from __future__ import annotations

import random
import time
from typing import Any

from search_spaces.records import Outcome, Progress, TestResult, Trial
from trainables.seeds import derive
from trainables.worker.session import EPOCHS_AHEAD
from trainables.worker.tune_trainable import DeviceTrainable


class FakeResident:
    """A trial whose scores rise along a curve of its own. `Progress.seconds` tells when it began, on the machine's clock."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self._draw = random.Random(derive(trial.seed, trial.id, "curve"))
        self._top, self._speed = 50 + 40 * self._draw.random(), 0.2 + self._draw.random()
        self._points: list[Progress] = []
        self.num_requested = self._num_reported = 0
        self._began = 0.0

    def may_train(self, epochs_ahead: int) -> bool:
        return len(self._points) < min(self.trial.recipe.epochs, self.num_requested + epochs_ahead)

    @property
    def has_report(self) -> bool:
        return self._num_reported < min(self.num_requested, len(self._points))

    def train(self) -> None:
        """An epoch, at once."""
        self._began = self._began or time.time()
        epoch = len(self._points) + 1
        score = self._top * (1 - (1 + self._speed) ** -epoch) + self._draw.random()
        last = self._points[-1] if self._points else None
        best, best_epoch = (last.best_score, last.best_epoch) if last and last.best_score >= score else (score, epoch)
        self._points.append(
            Progress(
                epoch=epoch,
                score=score,
                loss=1.0,
                best_score=best,
                best_epoch=best_epoch,
                seconds=self._began,
                memory_mib=9.0,
            )
        )

    def report_epoch(self) -> Any:
        """Request, train and report one more epoch."""
        self.num_requested += 1
        self.train()
        return self.next_report()

    def next_report(self) -> Any:
        from trainables.worker.trial_runner import Report  # brings torch, which the driver's process does not need

        self._num_reported += 1
        point = self._points[self._num_reported - 1]
        if self._num_reported < self.trial.recipe.epochs:
            return Report(progress=point)
        outcome = Outcome(
            state="DONE", reason="epochs", epochs=point.epoch, best_epoch=point.best_epoch, best_score=point.best_score
        )
        if self.trial.phase == "search":
            return Report(progress=point, outcome=outcome)
        test = TestResult(metrics={"accuracy": point.best_score}, predictions=(0.0,), labels=(0.0,), collapsed=False)
        return Report(progress=point, outcome=outcome, test=test)


class FakeDeviceWorker:
    """Every trial with a requested epoch trains it in one step, which takes `seconds`."""

    def __init__(self, epochs_ahead: int, seconds: float):
        self._epochs_ahead, self._seconds = epochs_ahead, seconds
        self.residents: dict[str, FakeResident] = {}
        self.failures: dict[str, Exception] = {}

    def add_trial(self, job: Any) -> None:
        self.residents[job.trial.id] = FakeResident(job.trial)

    def remove_trial(self, trial_id: str) -> None:
        self.residents.pop(trial_id, None)
        self.failures.pop(trial_id, None)

    def request_epoch(self, trial_id: str) -> None:
        self.residents[trial_id].num_requested += 1

    @property
    def has_work(self) -> bool:
        return any(r.may_train(self._epochs_ahead) for r in self.residents.values())

    def step(self) -> None:
        waiting = [r for r in self.residents.values() if r.may_train(self._epochs_ahead)]
        for resident in waiting:
            resident.train()
        if waiting:
            time.sleep(self._seconds)


class FakeTrainable(DeviceTrainable):
    seconds = 0.0

    @classmethod
    def open_worker(cls, gpus: list[str]) -> Any:
        return FakeDeviceWorker(EPOCHS_AHEAD, cls.seconds)


def trainable(epoch_seconds: float) -> type[DeviceTrainable]:
    """A trainable whose device workers are fakes."""
    return type("Trainable", (FakeTrainable,), {"seconds": epoch_seconds})
