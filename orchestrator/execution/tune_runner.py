"""Runs a sweep on Ray Tune, with one device worker for each device that the sweep can use.

A trial in the sense of Tune is a device worker here, which trains trials of the sweep until nothing is left. Tune places the
workers on devices and restarts their processes. Reports of the trials go through the mailbox to the controller, not through
Tune. Tune's own snapshots are never read, so the classes of this module are pickled without their state.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError
from ray.tune.error import TuneError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.execution import watchdog
from orchestrator.execution.cluster import Share
from orchestrator.execution.controller import Controller, EndListener, Messages, Orders, Verdicts
from orchestrator.execution.disk_watch import DiskWatch
from orchestrator.execution.drain import Drain
from orchestrator.execution.other_sweeps import OtherSweeps, mailbox_name
from orchestrator.execution.progress import ProgressDisplay
from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.execution.worker_pool import WorkerPool
from orchestrator.exit_codes import ClusterLost, EnvironmentUnfit
from orchestrator.search.sweep import Sweep
from orchestrator.search.time_budget import TimeBudget
from search_spaces.environment import changed
from search_spaces.redaction import clean
from trainables.worker.tune_trainable import DeviceTrainable, SweepsOfCluster, number_of_devices, open_mailbox

log = logging.getLogger(__name__)

# Number of restarts of a worker's process. Trials that end their processes fail long before (`worker_pool.DEATHS`).
RESTARTS = 20
# Number of Tune runs before the sweep is given up. In the pinned version, a worker killed for lack of memory ends a whole run.
RUNS = 5
# Number of failures in a row, in which no worker starts, before a Tune run is ended.
FAILED_STARTS = 3
# In Ray's message about an actor whose node was lost.
NODE_DIED = "its node has died"
# Longest time in seconds that the controller waits for messages, before it checks the time budget and whether it is closed.
NEWS_SECONDS = 0.5
# Seconds after which the mailbox is given up, after two attempts: the first one may end because the driver itself was stopped.
MAILBOX_SECONDS, MAILBOX_ATTEMPTS = 60.0, 2
# Variables that Tune copies to its workers by way of their command lines, which every user of the machine can read. These hold
# credentials for storage in the cloud. Workers have those of their own node.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
    {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
)


class NotPickled:
    """Base of the objects that Tune pickles with its own state. They are pickled empty, since they are never restored."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class WorkerSearcher(NotPickled, Searcher):
    """Opens device workers, at most `devices`. Tune calls `suggest` whenever it could start one more of its trials.

    Each worker gets `config` and its own name.
    """

    def __init__(self, controller: Controller, devices: int, config: dict[str, Any]):
        super().__init__()
        self._controller, self._devices, self._config = controller, devices, config
        self._open: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self._open) >= self._devices:
            return None
        num_workers = self._controller.grow_workers()
        if not num_workers and not self._open:
            return Searcher.FINISHED
        limit = self._controller.limit
        if len(self._open) >= (num_workers if limit is None else min(num_workers, limit)):
            return None
        self._open.add(trial_id)
        return {**self._config, "worker": trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._open.discard(trial_id)
        self._controller.worker_ended(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


class WorkerScheduler(NotPickled, FIFOScheduler):
    """Lets every worker run to its end, and tells the controller when a process ended before that."""

    def __init__(self, controller: Controller):
        super().__init__()
        self._controller = controller
        self._failed_starts = 0

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        return True

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose no worker, which leaves that to Tune, but withdraw those that wait for a device which another sweep may have."""
        if self._controller.limit is not None:
            live = tune_controller.get_live_trials()
            waiting = [trial for trial in live if trial.status == Trial.PENDING]
            for trial in waiting[: max(0, len(live) - self._controller.limit)]:
                tune_controller.stop_trial(trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Called after each failure of a worker, before its restart."""
        reason = reason_of(trial)
        had_started = self._controller.worker_died(trial.trial_id, reason, NODE_DIED in reason)
        self._failed_starts = 0 if had_started else self._failed_starts + 1
        if not had_started:
            log.error("a worker could not be started: %s", reason)
        if self._failed_starts >= FAILED_STARTS:
            end_tune_run()


class LoopCallback(NotPickled, tune.Callback):
    """Called in every round of Tune's loop. Draws the display, stops the sweep before a disk is full, ends processes of workers
    that hang, and divides the devices with other sweeps. Ends the run if a drain is past its deadline or the controller has
    failed.
    """

    def __init__(
        self,
        controller: Controller,
        display: ProgressDisplay,
        drain: Drain,
        others: OtherSweeps | None = None,
        devices: int = 0,
        disks: DiskWatch | None = None,
    ):
        self._controller, self._display, self._drain = controller, display, drain
        self._others, self._devices, self._disks = others, devices, disks

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._drain.signal is not None:
            self._controller.drain(self._drain.signal.name)
        if self._disks and (shortage := self._disks.shortage()):
            self._controller.stop_as_unfit(shortage)
        if self._display.is_due:
            self._display.draw(self._controller.progress())
        hanging = self._controller.take_hanging()
        for trial in trials if hanging else []:
            if trial.trial_id in hanging and trial.temporary_state.ray_actor:
                # Tune takes this for a crash and restarts the worker. Ray ends a stopped process, too, after some seconds.
                ray.kill(trial.temporary_state.ray_actor)
        if self._others and self._others.is_due:
            wanted = min(self._devices, self._controller.grow_workers())
            self._controller.limit_workers(self._others.look(self._controller.num_workers, wanted))
        if self._drain.due or self._controller.error:
            end_tune_run()


class RayMailbox:
    """The driver's end of the mailbox, which is a Ray actor."""

    def __init__(self, actor: Any):
        self._actor = actor

    def exchange(self, orders: Orders, verdicts: Verdicts) -> tuple[Messages, Messages]:
        news: tuple[Messages, Messages]
        answer = self._actor.take.remote(orders, verdicts, NEWS_SECONDS)
        for _ in range(MAILBOX_ATTEMPTS):
            with suppress(GetTimeoutError):
                news = ray.get(answer, timeout=MAILBOX_SECONDS)
                return news
        ray.kill(self._actor)  # workers that wait for its answers then end, too
        raise GetTimeoutError(f"it did not answer for {MAILBOX_ATTEMPTS * MAILBOX_SECONDS:.0f} s")


@dataclass(frozen=True, kw_only=True)
class TuneRunner:
    """Runs a sweep on Ray Tune. `checkpoints` is told of each ended trial once its end is in the ledger."""

    sweep: Sweep
    paths: TrialPaths
    checkpoints: EndListener
    display: ProgressDisplay
    drain: Drain
    time_budget: TimeBudget | None = None
    disks: DiskWatch | None = None

    def run(self, share: Share, folder: Path) -> None:
        """Run the sweep until it is finished, drained or broken.

        Raises ClusterLost if Tune has given up RUNS times, EnvironmentUnfit if machines cannot train its trials, or if a disk is
        almost full. Tune writes its own files to `folder`; they are never read.
        """
        for attempt in range(RUNS):
            name = mailbox_name(self.paths.sweep, f"{folder.name}-{attempt}")
            with self._controller(name, share) as controller:
                config: dict[str, Any] = {
                    "mailbox": name,
                    "environment": dict(self.paths.environment),
                    "storage": self.paths.storage,
                    "sweep": self.paths.sweep,
                    "ping_seconds": watchdog.PING_SECONDS,
                }
                searcher = WorkerSearcher(controller, share.devices, config)
                kind = "GPU" if share.gpu else "CPU"
                others = OtherSweeps(kind, SweepsOfCluster(name).exchange, number_of_devices)
                callback = LoopCallback(controller, self.display, self.drain, others, share.devices, self.disks)
                _run_tune(searcher, WorkerScheduler(controller), share, folder / "tune", f"run{attempt}", callback)
            if controller.environment_error:
                raise EnvironmentUnfit(controller.environment_error)
            if self.sweep.finished or self.sweep.draining or self.sweep.broken:
                return
            self.sweep.requeue()
        raise ClusterLost(f"Ray Tune gave up {RUNS} times")

    @contextmanager
    def _controller(self, name: str, share: Share) -> Iterator[Controller]:
        """Run a controller in a thread, with a mailbox of this name.

        An exception of the controller is raised at the end. If Ray lost the mailbox, it is only logged.
        """
        mailbox = RayMailbox(open_mailbox(name, self.paths.checkpoints, self.paths.data.values()))
        pool = WorkerPool(share.devices if share.expected is None else share.expected, share.per_device)
        controller = Controller(self.sweep, mailbox, self.paths, self.checkpoints, pool, self.time_budget)
        thread = threading.Thread(target=controller.run, name="controller", daemon=True)
        thread.start()
        try:
            yield controller
        finally:
            controller.close()
            thread.join()
        if isinstance(controller.error, RayError):
            log.error("the sweep's mailbox was lost (%s); opening another one", _first_line(controller.error))
        elif controller.error:
            raise controller.error


def _run_tune(
    searcher: WorkerSearcher, scheduler: WorkerScheduler, share: Share, storage: Path, name: str, callback: LoopCallback
) -> None:
    tuner = tune.Tuner(
        tune.with_resources(DeviceTrainable, tune.PlacementGroupFactory([share.resources])),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=False,  # else the device of a worker that has ended stays reserved
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            verbose=0,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    try:
        with changed({"TUNE_MAX_PENDING_TRIALS_PG": str(share.devices)}):
            tuner.fit()
    except (RayError, TuneError, RuntimeError) as error:
        log.error("Ray Tune gave up (%s); starting it again for what is left", _first_line(error))


def end_tune_run() -> None:
    """End Tune's run by SIGUSR1. Tune handles it by stopping its trials and returning, even without its SIGINT handler."""
    os.kill(os.getpid(), signal.SIGUSR1)


def reason_of(trial: Any) -> str:
    """Return why one of Tune's trials failed: the last line of its error file without secrets, or "unknown"."""
    # Before it is split, because a secret may have several lines.
    lines = [line.strip() for line in clean(_error_text(trial)).split("\n") if line.strip()]
    return lines[-1] if lines else "unknown"


def _error_text(trial: Any) -> str:
    """Return the content of the error file of one of Tune's trials, which has its errors so far; "" without one."""
    path = Path(trial.error_file or "")
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
