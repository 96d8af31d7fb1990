"""Ray Tune on one side, the sweep on the other: a searcher and a scheduler that only pass on what `Sweep` says.

Tune starts, retries and stops trials; it remembers nothing that matters. Its pickled snapshots hold these adapters empty.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster import Share
from orchestrator.exits import INTERRUPTED, ClusterLost
from orchestrator.sweep import Sweep
from search_spaces.records import Outcome, Progress, TestResult, Trial
from trainables.host import open_registry
from trainables.trainable import REPORT, TrialTrainable

log = logging.getLogger(__name__)

# Restarts of one trial after its worker died; it continues from its last checkpoint.
RETRIES = 2
# Fresh Tune runs after Tune itself gave up (a worker killed for memory ends a whole run of the pinned version).
RUNS = 5
# How long running epochs may go on after a first signal, in seconds: Ctrl-C, and SIGTERM, which comes with 30 s of grace.
PATIENCE = {signal.SIGINT: 120.0, signal.SIGTERM: 20.0}


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where trials find things: model name -> source, (model, task) -> token file, and the folder of checkpoints.

    `registry`: name of the actor that knows the lanes, "" where every trial has its device to itself.
    """

    sources: dict[str, str]
    data: dict[tuple[str, str], Path]
    checkpoints: Path
    registry: str = ""


class Adapter:
    """What Tune pickles of our objects: nothing. They are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SweepSearcher(Adapter, Searcher):
    """`suggest` is called whenever Tune could start one more trial."""

    def __init__(self, sweep: Sweep, places: Places, slots: int, ended: Callable[[str], None]):
        super().__init__()
        self._sweep, self._places, self._slots, self._ended = sweep, places, slots, ended
        self.reasons: dict[str, str] = {}
        self._live: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        if len(self._live) >= self._slots:
            return None
        trial = self._sweep.suggest()
        if isinstance(trial, str):
            return None if trial == "wait" or self._live else Searcher.FINISHED
        self._live[trial_id] = trial.id
        return self._config(trial)

    def _config(self, trial: Trial) -> dict[str, Any]:
        return {
            "id": trial.id,
            "trial": json.dumps(trial.to_json()),
            "source": self._places.sources[trial.cell.model],
            "data": str(self._places.data[trial.cell.model, trial.cell.task]),
            "checkpoints": str(self._places.checkpoints),
            "registry": self._places.registry,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        ours = self._live.pop(trial_id, None)
        if error and ours:
            reason = self.reasons.get(trial_id, "unknown")
            log.error("trial %s failed: %s", ours, reason)
            self._sweep.fail(ours, reason)
            self._ended(ours)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class SweepScheduler(Adapter, FIFOScheduler):
    """Passes every result to the sweep and its decision back."""

    def __init__(self, sweep: Sweep, searcher: SweepSearcher, ended: Callable[[str], None]):
        super().__init__()
        self._sweep, self._searcher, self._ended = sweep, searcher, ended

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        return True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._enter(trial, result)
        if goes_on and not self._sweep.draining:
            return TrialScheduler.CONTINUE
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if REPORT in result:
            self._enter(trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Also called before a retry; only the searcher is told when a trial has failed for good.
        self._searcher.reasons[trial.trial_id] = reason_of(trial)

    def _enter(self, trial: Any, result: dict[str, Any]) -> bool:
        report = json.loads(result[REPORT])
        outcome = Outcome.from_json(report["outcome"]) if report["outcome"] else None
        test = TestResult.from_json(report["test"]) if report["test"] else None
        trial_id = trial.config["id"]
        goes_on = self._sweep.record(trial_id, Progress.from_json(report["progress"]), outcome, test)
        if not goes_on:
            self._ended(trial_id)
        return goes_on


class Beat(Adapter, tune.Callback):
    """Called in every round of Tune's loop: redraws the display, and ends the run when a drain has lasted long enough."""

    def __init__(self, sweep: Sweep, refresh: Callable[[], None], drain: Drain):
        self._sweep, self._refresh, self._drain = sweep, refresh, drain

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._drain.signal is not None:
            self._sweep.drain(self._drain.signal.name)
        self._refresh()
        if self._drain.due:
            end_tune_run()


class Drain:
    """The first signal starts a drain with a deadline; a second Ctrl-C ends the process at once.

    The handler only takes note: it may run in the middle of a ledger write, so that acting on it is left to Tune's loop.
    """

    def __init__(self, goodbye: Callable[[], None]):
        self._goodbye = goodbye
        self.signal: signal.Signals | None = None
        self._deadline = float("inf")

    @property
    def due(self) -> bool:
        return time.monotonic() > self._deadline

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP. To be entered after Ray has started, which installs handlers of its own."""
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        before = {s: signal.signal(s, self._on) for s in signals}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            self._goodbye()
            os._exit(INTERRUPTED)
        if self.signal is None:
            self.signal = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
            self._deadline = time.monotonic() + PATIENCE[self.signal]


def run(
    sweep: Sweep,
    places: Places,
    share: Share,
    folder: Path,
    drain: Drain,
    ended: Callable[[str], None],
    refresh: Callable[[], None],
) -> None:
    """Run the sweep to its end, or until it is drained or broken. Raises ClusterLost when Tune cannot go on."""
    registry = None
    if share.per_device > 1:
        registry = open_registry(folder.name)
        places = replace(places, registry=folder.name)

    def over(trial_id: str) -> None:
        ended(trial_id)
        if registry:
            registry.left.remote(trial_id)

    for attempt in range(RUNS):
        searcher = SweepSearcher(sweep, places, share.slots, over)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(share.slots)
        tuner = tune.Tuner(
            tune.with_resources(TrialTrainable, tune.PlacementGroupFactory([{"CPU": share.cpu, "GPU": share.gpu}])),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=SweepScheduler(sweep, searcher, over),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"run{attempt}",
                storage_path=str(folder / "tune"),
                verbose=0,
                callbacks=[Beat(sweep, refresh, drain)],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except (RayError, TuneError, RuntimeError) as error:
            log.error("Ray Tune gave up (%s); starting it again for what is left", str(error).strip().split("\n")[0])
        if sweep.finished or sweep.draining or sweep.broken:
            return
        sweep.requeue()
    raise ClusterLost(f"Ray Tune gave up {RUNS} times")


def end_tune_run() -> None:
    """Tune listens to this signal in any case, and stops its run with everything told."""
    os.kill(os.getpid(), signal.SIGUSR1)


def reason_of(trial: Any) -> str:
    """One line that says why a trial failed: the last line of its error, which Tune keeps in a file of the trial."""
    path = Path(trial.error_file or "")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1][:500] if lines else "unknown"
