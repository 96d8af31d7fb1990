"""A sweep whose trials train nothing: lanes with closed-form curves, for everything around them to be measured.

The lanes' processes, the desk, Ray Tune, ledger and tracking store are the real ones; only the engine is missing.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from orchestrator.ledger import Ledger
from orchestrator.library import Library
from orchestrator.sweep import Sweep
from search_spaces.language import Budget, Cell, Recipe, Space, choice, log_uniform, method
from search_spaces.records import Counts, Outcome, Progress, TestResult, Trial
from trainables.host import LaneHost, Registry
from trainables.lane import Job
from trainables.resident import Report
from trainables.seeds import derive

COUNTS = Counts(weights=1, module=2, trained=3, total=100)


class FakeResident:
    """A trial whose scores rise along a curve of its own. `Progress.seconds` tells when it began, on the machine's clock."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self._draw = random.Random(derive(trial.seed, trial.id, "curve"))
        self._top, self._speed = 50 + 40 * self._draw.random(), 0.2 + self._draw.random()
        self._points: list[Progress] = []
        self._asked = self._reported = 0
        self._began = 0.0

    def ask(self) -> None:
        self._asked += 1

    def wants(self, ahead: int) -> bool:
        return len(self._points) < min(self.trial.recipe.epochs, self._asked + ahead)

    @property
    def ready(self) -> bool:
        return self._reported < min(self._asked, len(self._points))

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

    def take(self) -> Report:
        self._reported += 1
        point = self._points[self._reported - 1]
        if self._reported < self.trial.recipe.epochs:
            return Report(progress=point)
        outcome = Outcome(
            state="DONE", reason="epochs", epochs=point.epoch, best_epoch=point.best_epoch, best_score=point.best_score
        )
        if self.trial.phase == "search":
            return Report(progress=point, outcome=outcome)
        test = TestResult(metrics={"accuracy": point.best_score}, predictions=(0.0,), labels=(0.0,), collapsed=False)
        return Report(progress=point, outcome=outcome, test=test)


class FakeLane:
    """All residents that want to train do an epoch in one turn, which takes `seconds`."""

    def __init__(self, ahead: int, seconds: float):
        self._ahead, self._seconds = ahead, seconds
        self.residents: dict[str, FakeResident] = {}
        self.failures: dict[str, Exception] = {}

    def enter(self, job: Job) -> None:
        self.residents[job.trial.id] = FakeResident(job.trial)

    def leave(self, trial_id: str) -> None:
        self.residents.pop(trial_id, None)

    def ask(self, trial_id: str) -> None:
        self.residents[trial_id].ask()

    @property
    def busy(self) -> bool:
        return any(r.wants(self._ahead) for r in self.residents.values())

    def turn(self) -> None:
        waiting = [r for r in self.residents.values() if r.wants(self._ahead)]
        for resident in waiting:
            resident.train()
        if waiting:
            time.sleep(self._seconds)


class FakeHost(LaneHost):
    seconds = 0.0

    @classmethod
    def open(cls, gpu: bool, ahead: int) -> Any:
        return FakeLane(ahead, cls.seconds)


def registry(epoch_seconds: float) -> type[Registry]:
    """A registry whose lanes are fakes."""
    host = type("Host", (FakeHost,), {"seconds": epoch_seconds})
    return type("FakeRegistry", (Registry,), {"host": host})


def make_space(trials: int, epochs: int, in_flight: int, cells: int = 1) -> Space:
    """`trials` of each cell, searched with TPE over three dimensions, and one final."""
    return Space(
        name="fake",
        models=("m",),
        tasks=tuple(f"t{i}" for i in range(cells)),
        methods=(method("adapter", r=choice(8, 16, 32), lr=log_uniform(1e-5, 1e-2)),),
        search={"lr": choice(1e-5, 1e-4), "batch_size": choice(8, 16)},
        recipe=Recipe(epochs=epochs, patience=epochs),
        budget=Budget(trials=trials, final_seeds=1, in_flight=in_flight),
    )


def make_sweep(space: Space, folder: Path, notify: Any = lambda records: None) -> Sweep:
    return Sweep(
        space, Ledger.open(folder), Library(folder.parent, folder), _maker(space), lambda trial: COUNTS, notify
    )


def _maker(space: Space) -> Any:
    def make(cell: Cell, hyperparameters: dict[str, Any], seed: int, phase: Any) -> Trial:
        entry = space.entry(cell.method)
        values = {**space.values_of(entry), **hyperparameters}
        settings = {name: value for name, value in values.items() if name not in ("lr", "batch_size")}
        return Trial(
            cell=cell,
            method=entry.name,
            settings=settings,
            lr=values["lr"],
            batch_size=values["batch_size"],
            seed=seed,
            phase=phase,
            recipe=space.recipe,
            weights="w",
            split="s",
        )

    return make
