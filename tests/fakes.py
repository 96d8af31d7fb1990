"""A sweep without training: trials are closed-form curves, workers report in random order, drivers die anywhere."""

from __future__ import annotations

import random
from contextlib import closing

from benchmarks.fake_sweep import make
from orchestrator.ledger import Ledger
from orchestrator.library import Library
from orchestrator.sweep import Sweep
from search_spaces.language import Budget, Recipe, Space, choice, log_uniform, method
from search_spaces.records import Counts, Outcome, Progress, TestResult, Trial
from trainables.seeds import derive

COUNTS = Counts(weights=1, module=2, trained=3, total=100)


def make_space(**changes) -> Space:
    values = {
        "name": "fake",
        "models": ("m",),
        "tasks": ("t", "u"),
        "methods": (method("full"), method("adapter", r=choice(8, 16, 32), lr=log_uniform(1e-5, 1e-2))),
        "search": {"lr": choice(1e-5, 1e-4, 1e-3), "batch_size": choice(8, 16)},
        "recipe": Recipe(epochs=8, patience=8),
        "budget": Budget(trials=8, final_seeds=2),
    }
    return Space(**{**values, **changes})


def curve(trial: Trial) -> list[Progress]:
    """Crossing curves that depend on nothing but the trial's cell, hyperparameters and seed."""
    draw = random.Random(derive(trial.seed, str(trial.cell), str(sorted(trial.hyperparameters.items())), "curve"))
    top, speed = 50 + 40 * draw.random(), 0.2 + draw.random()
    points, best, best_epoch = [], 0.0, 0
    for epoch in range(1, trial.recipe.epochs + 1):
        score = top * (1 - (1 + speed) ** -epoch) + draw.random()
        if score > best:
            best, best_epoch = score, epoch
        points.append(Progress(epoch=epoch, score=score, loss=1.0, best_score=best, best_epoch=best_epoch, seconds=1.0))
    return points


def end_of(trial: Trial, last: Progress) -> tuple[Outcome, TestResult | None]:
    test = None
    if trial.phase == "final":
        test = TestResult(
            metrics={"accuracy": last.best_score}, predictions=(0.0, 1.0), labels=(0.0, 1.0), collapsed=False
        )
    outcome = Outcome(
        state="DONE",
        reason="epochs",
        epochs=last.epoch,
        best_epoch=last.best_epoch,
        best_score=last.best_score,
        metrics=test.metrics if test else {},
    )
    return outcome, test


def report(trial: Trial, progress: Progress) -> dict:
    """What a lane hands in after this epoch."""
    outcome, test = end_of(trial, progress) if progress.epoch == trial.recipe.epochs else (None, None)
    ends = {"outcome": outcome and outcome.to_json(), "test": test and test.to_json()}
    return {"id": trial.id, "progress": progress.to_json(), **ends}


class Died(Exception):
    """The driver was killed."""


def open_sweep(space: Space, root, name: str = "sweep", notify=lambda records: None) -> Sweep:
    folder = root / name
    ledger = Ledger.open(folder)
    return Sweep(space, ledger, Library(root, folder), make(space), lambda trial: COUNTS, notify)


def drive(
    space,
    root,
    *,
    workers=3,
    seed=0,
    name="sweep",
    dies_at=None,
    fails=lambda trial: False,
    trained=None,
    begin=lambda sweep: None,
    look=lambda: None,
) -> Sweep:
    """Run to the end with `workers` that report in random order; after `dies_at` reports the driver dies.

    `begin` gets the sweep before it starts, `look` is called before each decision.
    """
    sweep = open_sweep(space, root, name)
    begin(sweep)
    with closing(sweep._ledger):
        draw, reports = random.Random(seed), 0
        running: dict[str, tuple[Trial, int]] = {}
        while True:
            look()
            trial = sweep.suggest() if len(running) < workers else "wait"
            if isinstance(trial, Trial):
                running[trial.id] = (trial, sweep.known_epochs(trial.id))
                continue
            if trial == "finished" and not running:
                sweep.close()
                return sweep
            assert running, "nothing runs and nothing may start"
            trial_id = draw.choice(sorted(running))
            trial, epoch = running[trial_id]
            if fails(trial):
                sweep.fail(trial_id, "boom")
                del running[trial_id]
                continue
            reports += 1
            if reports == dies_at:
                raise Died
            points = curve(trial)
            if epoch < len(points):
                progress, epoch = points[epoch], epoch + 1
                if trained is not None:
                    trained.append((trial_id, epoch))
            else:
                progress = points[-1]
            outcome, test = end_of(trial, progress) if epoch == len(points) else (None, None)
            if sweep.record(trial_id, progress, outcome, test):
                running[trial_id] = (trial, epoch)
            else:
                del running[trial_id]


def result(sweep: Sweep):
    """Everything a report depends on: per cell, every trial's configuration, curve length and end, and the winner."""
    return {
        str(cell): (
            [(e.trial.id, len(e.curve), e.outcome.state, e.outcome.best_score) for e in search.entries],
            search.winner and search.winner.trial.id,
        )
        for cell, search in sweep.cells.items()
    }
