"""Ray Tune on one side, the sweep on the other: a searcher that asks for as many places as the sweep can use.

Tune finds each trial a place on a device, keeps and replaces processes; a trial of Tune's is a place for one trial of ours. What
they report goes past Tune, through the sweep's desk to its clerk. Tune remembers nothing that matters; its pickled snapshots
hold these adapters empty.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.clerk import Clerk, Jobs, Verdicts
from orchestrator.cluster import Share
from orchestrator.exits import INTERRUPTED, ClusterLost
from orchestrator.sweep import Sweep
from search_spaces.environment import changed
from search_spaces.records import Trial
from trainables.host import open_registry
from trainables.trainable import TrialTrainable

log = logging.getLogger(__name__)

# Restarts of one trial after its worker died; it continues from its last checkpoint.
RETRIES = 2
# Fresh Tune runs after Tune itself gave up (a worker killed for memory ends a whole run of the pinned version).
RUNS = 5
# Places that could not be opened before a run of Tune's is given up.
LOST_PLACES = 3
# How long the desk may have no news before the clerk looks up.
NEWS_SECONDS = 0.5
# How long running epochs may go on after a first signal, in seconds: Ctrl-C, and SIGTERM, which comes with 30 s of grace.
PATIENCE = {signal.SIGINT: 120.0, signal.SIGTERM: 20.0}


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where trials find things: model name -> source, (model, task) -> token file, and the folder of checkpoints."""

    sources: dict[str, str]
    data: dict[tuple[str, str], Path]
    checkpoints: Path

    def describe(self, trial: Trial) -> dict[str, Any]:
        """What a place needs to train this trial."""
        return {
            "id": trial.id,
            "trial": trial.to_json(),
            "source": self.sources[trial.cell.model],
            "data": str(self.data[trial.cell.model, trial.cell.task]),
            "checkpoints": str(self.checkpoints),
        }


class Adapter:
    """What Tune pickles of our objects: nothing. They are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PlaceSearcher(Adapter, Searcher):
    """`suggest` is called whenever Tune could open one more place; `config` is what all of them need."""

    def __init__(self, clerk: Clerk, slots: int, config: dict[str, Any]):
        super().__init__()
        self._clerk, self._slots, self._config = clerk, slots, config
        self._open: set[str] = set()
        self._lost = 0
        self.reasons: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        if len(self._open) >= self._slots:
            return None
        wanted = self._clerk.wanted()
        if not wanted and not self._open:
            return Searcher.FINISHED
        if len(self._open) >= wanted:
            return None
        self._open.add(trial_id)
        return {**self._config, "place": trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._open.discard(trial_id)
        ours = self._clerk.vacate(trial_id)
        if error:
            self._failed(ours, self.reasons.pop(trial_id, "unknown"))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def _failed(self, ours: str, reason: str) -> None:
        if ours:
            log.error("trial %s failed: %s", ours, reason)
            self._clerk.fail(ours, reason)
            return
        log.error("a place for a trial could not be opened: %s", reason)
        self._lost += 1
        if self._lost >= LOST_PLACES:
            end_tune_run()


class PlaceScheduler(Adapter, FIFOScheduler):
    """Leaves every place to its trial."""

    def __init__(self, searcher: PlaceSearcher):
        super().__init__()
        self._searcher = searcher

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        return True

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Nobody in particular. Tune's choice would be the oldest place whose process is still starting: it would get a
        process that has just become free, its own would be killed, and another one started for the place that came last."""
        return

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Also called before a retry; only the searcher is told when a trial has failed for good.
        self._searcher.reasons[trial.trial_id] = reason_of(trial)


class Beat(Adapter, tune.Callback):
    """Called in every round of Tune's loop: redraws the display, ends the run when a drain has lasted long enough or the clerk
    has given up."""

    def __init__(self, clerk: Clerk, refresh: Callable[[], None], drain: Drain):
        self._clerk, self._refresh, self._drain = clerk, refresh, drain

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._drain.signal is not None:
            self._clerk.drain(self._drain.signal.name)
        self._refresh()
        if self._drain.due or self._clerk.error:
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
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run the sweep to its end, or until it is drained or broken. Raises ClusterLost when Tune cannot go on.

    `ended` is told of each trial whose end is durable; `refresh` is called often, and `look` before anything is decided.
    """
    for attempt in range(RUNS):
        name = f"{folder.name}-{attempt}"
        with _desk(sweep, places, name, ended, look) as clerk:
            searcher = PlaceSearcher(clerk, share.slots, {"registry": name, "shared": share.per_device > 1})
            _run_tune(searcher, share, folder / "tune", f"run{attempt}", Beat(clerk, refresh, drain))
        if sweep.finished or sweep.draining or sweep.broken:
            return
        sweep.requeue()
    raise ClusterLost(f"Ray Tune gave up {RUNS} times")


@contextmanager
def _desk(
    sweep: Sweep, places: Places, name: str, ended: Callable[[str], None], look: Callable[[], None]
) -> Iterator[Clerk]:
    """A desk and the clerk that serves it from a thread. Raises what the clerk met, unless Ray lost the desk."""
    registry = open_registry(name)

    def take(jobs: Jobs, verdicts: Verdicts) -> Any:
        return ray.get(registry.take.remote(jobs, verdicts, NEWS_SECONDS))

    def over(trial_id: str) -> None:
        ended(trial_id)
        registry.left.remote(trial_id)

    clerk = Clerk(sweep, take, places.describe, over, look)
    thread = threading.Thread(target=clerk.run, name="clerk", daemon=True)
    thread.start()
    try:
        yield clerk
    finally:
        clerk.close()
        thread.join()
    if isinstance(clerk.error, RayError):
        log.error("the sweep's desk was lost (%s); opening another one", _first_line(clerk.error))
    elif clerk.error:
        raise clerk.error


def _run_tune(searcher: PlaceSearcher, share: Share, storage: Path, name: str, beat: Beat) -> None:
    tuner = tune.Tuner(
        tune.with_resources(TrialTrainable, tune.PlacementGroupFactory([{"CPU": share.cpu, "GPU": share.gpu}])),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PlaceScheduler(searcher),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            verbose=0,
            callbacks=[beat],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    try:
        with changed({"TUNE_MAX_PENDING_TRIALS_PG": str(share.slots)}):
            tuner.fit()
    except (RayError, TuneError, RuntimeError) as error:
        log.error("Ray Tune gave up (%s); starting it again for what is left", _first_line(error))


def end_tune_run() -> None:
    """Tune listens to this signal in any case, and stops its run with everything told."""
    os.kill(os.getpid(), signal.SIGUSR1)


def reason_of(trial: Any) -> str:
    """One line that says why a trial failed: the last line of its error, which Tune keeps in a file of the trial."""
    path = Path(trial.error_file or "")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[-1][:500] if lines else "unknown"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
