"""The other side of C9: every epoch is a result of Ray Tune's, and one fsync of the ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from benchmarks.fake_sweep import make_space, make_sweep
from benchmarks.fake_worker import FakeResident
from orchestrator.search.sweep import Sweep
from search_spaces.records import Outcome, Progress, TestResult, Trial

SLOTS = 4


class Reporting(tune.Trainable):
    """One `step()` is one epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        self._resident = FakeResident(Trial.from_json(json.loads(config["trial"])))

    def step(self) -> dict[str, Any]:
        report = self._resident.report_epoch().to_json()
        return {"report": json.dumps(report), "done": report["outcome"] is not None}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None


class Suggesting(Searcher):
    def __init__(self, sweep: Sweep):
        super().__init__()
        self._sweep, self._live = sweep, 0

    def suggest(self, trial_id: str) -> Any:
        trial = self._sweep.next_trial() if self._live < SLOTS else "wait"
        if not isinstance(trial, Trial):
            return Searcher.FINISHED if trial == "finished" and not self._live else None
        self._live += 1
        return {"trial": json.dumps(trial.to_json()), "id": trial.id}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self._live -= 1

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Recording(FIFOScheduler):
    def __init__(self, sweep: Sweep, times: list[float]):
        super().__init__()
        self._sweep, self._times = sweep, times

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        return True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._times.append(time.perf_counter())
        return TrialScheduler.CONTINUE if self._enter(trial, result) else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._times.append(time.perf_counter())
        self._enter(trial, result)

    def _enter(self, trial: Any, result: dict[str, Any]) -> bool:
        report = json.loads(result["report"])
        outcome = Outcome.from_json(report["outcome"]) if report["outcome"] else None
        test = TestResult.from_json(report["test"]) if report["test"] else None
        return self._sweep.record(trial.config["id"], Progress.from_json(report["progress"]), outcome, test)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_reports(root: Path, temporary: Path, trials: int, epochs: int) -> float:
    """Results per second, from when half of them are in: places are open then."""
    sweep, times = make_sweep(make_space(trials, epochs, in_flight=SLOTS, grace=epochs), root / "sweep"), list[float]()
    tuner = tune.Tuner(
        tune.with_resources(Reporting, tune.PlacementGroupFactory([{"CPU": 2 / SLOTS}])),
        tune_config=tune.TuneConfig(
            search_alg=Suggesting(sweep), scheduler=Recording(sweep, times), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(name="reports", storage_path=str(temporary / "tune"), verbose=0),
    )
    tuner.fit()
    assert sweep.finished
    middle = times[len(times) // 2 :]
    return len(middle) / (middle[-1] - middle[0])
