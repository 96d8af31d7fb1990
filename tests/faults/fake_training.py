"""A sweep without Ray and training, for drivers that are killed: residents have closed-form curves and real checkpoints."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from orchestrator.execution.checkpoint_retention import CheckpointRetention
from orchestrator.ledger import read
from orchestrator.search.study_storage import FILE, write_studies
from orchestrator.search.sweep import Sweep
from search_spaces.language import Space
from search_spaces.records import Outcome, Progress, TestResult, Trial
from tests.fixtures.fakes import curve, open_sweep
from trainables.worker.checkpoint_store import CheckpointFolder, replace_folder

LABELS = tuple(float(i % 2) for i in range(60))  # as many as the test split of `write_project` has
RESIDENTS = 3


def end_of(trial: Trial, last: Progress) -> tuple[Outcome, TestResult | None]:
    """Return how a trial ends after its last epoch, and a final's predictions, of which its best score are right."""
    outcome = Outcome(
        state="DONE", reason="epochs", epochs=last.epoch, best_epoch=last.best_epoch, best_score=last.best_score
    )
    if trial.phase == "search":
        return outcome, None
    draw = random.Random(trial.id)
    predictions = tuple(label if draw.random() < last.best_score / 100 else 1 - label for label in LABELS)
    accuracy = 100 * float(np.mean(np.equal(predictions, LABELS)))
    test = TestResult(metrics={"accuracy": accuracy}, predictions=predictions, labels=LABELS, collapsed=False)
    return replace(outcome, metrics=test.metrics), test


class FakeTraining:
    """Trains a sweep to its end, or until `drain` has a signal. A random number of residents reports at once.

    Like a worker, a resident writes its checkpoint before it reports the epoch; `listener` is told of ended trials as by the
    controller. The file `trained` gets a line for each epoch that is trained.
    """

    def __init__(self, sweep: Sweep, checkpoints: Path, listener: Any, trained: Path, seed: int, drain: Any = None):
        self._sweep, self._folder, self._listener, self._drain = sweep, checkpoints, listener, drain
        self._trained, self._draw = trained, random.Random(seed)

    def run(self) -> None:
        running: dict[str, Trial] = {}
        while True:
            if self._stopping:
                self._sweep.drain(self._drain.signal.name)
            with self._sweep.transaction():
                ended = self._report(running)
                while len(running) < RESIDENTS and isinstance(trial := self._sweep.next_trial(), Trial):
                    running[trial.id] = trial
            for trial_id in ended:
                self._listener.trial_ended(trial_id)
            if not running:
                return

    @property
    def _stopping(self) -> bool:
        return self._drain is not None and self._drain.signal is not None

    def _report(self, running: dict[str, Trial]) -> list[str]:
        """Report an epoch of some running trials; return the ids of those that have ended."""
        ended = []
        for trial_id in self._draw.sample(sorted(running), self._draw.randint(0, len(running))):
            trial, points = running[trial_id], curve(running[trial_id])
            point = points[min(self._sweep.known_epochs(trial_id), len(points) - 1)]
            self._train(trial, point.epoch)
            outcome, test = end_of(trial, point) if point is points[-1] else (None, None)
            if self._sweep.record(trial_id, point, outcome, test) and not self._stopping:
                continue
            del running[trial_id]
            if self._sweep.entry(trial_id).outcome:
                ended.append(trial_id)
        return ended

    def _train(self, trial: Trial, epoch: int) -> None:
        """Train an epoch, unless the trial's checkpoint has it. It has every epoch that was reported."""
        folder = self._folder / trial.id
        found = next((path for path in (folder, folder.with_name(f"{trial.id}.old")) if path.is_dir()), None)
        stored = json.loads((found / "state.json").read_text())["epoch"] if found else 0
        assert stored >= epoch - 1, f"{trial.id}: epoch {epoch} is next, and the checkpoint has {stored}"
        if stored >= epoch:
            return
        with self._trained.open("a") as file:
            file.write(f"{trial.id} {epoch}\n")

        def fill(fresh: Path) -> None:
            save_file({"w": np.ones(epoch, np.float32)}, fresh / "state.safetensors")
            (fresh / "state.json").write_text(json.dumps({"epoch": epoch}))

        replace_folder(folder, fill)


def train_sweep(space: Space, out: Path, trained: Path, seed: int) -> None:
    """Run a sweep to its end, or on from where an earlier driver was killed: all that the driver writes itself."""
    sweep = open_sweep(space, out)
    ledger, checkpoints = sweep._ledger, out / "sweep" / "checkpoints"
    retention = CheckpointRetention(sweep, CheckpointFolder(checkpoints), ledger.append, ledger.history.measured)
    retention.tidy()
    FakeTraining(sweep, checkpoints, retention, trained, seed).run()
    retention.tidy()
    sweep.close()
    write_studies(out / "sweep" / FILE, sweep.searches.values(), read(out / "sweep"), {})
    ledger.close()
