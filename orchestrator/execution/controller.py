"""The controller: the driver's thread that applies the trials' reports and assigns trials to device workers.

It takes all messages that have arrived, decides on them, writes the decisions to the ledger at once, and answers. All decisions
on the sweep are taken in this thread or under its lock. Ray is not used here.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.execution.watchdog import Watchdog
from orchestrator.execution.worker_pool import DEATHS, WorkerPool
from orchestrator.search.snapshots import CellSnapshot
from orchestrator.search.sweep import Sweep
from orchestrator.search.time_budget import TimeBudget
from orchestrator.search.trial_names import TrialNames
from search_spaces.records import Outcome, Progress, TestResult, Trial

log = logging.getLogger(__name__)

# Number of errors of a machine, or of the machines that had a trial, after which the sweep stops.
TRIES = 3
# Number of times that a trial that ended with an error is trained again. It continues from its last checkpoint.
RETRIES = 2
# By worker: its orders (`trainables/worker/mailbox.py`).
Orders = dict[str, dict[str, Any]]
# By (id of the sender's process, trial id): whether the trial should go on after its report.
Verdicts = dict[tuple[str, str], bool]
Messages = Sequence[Mapping[str, Any]]


class DriverMailbox(Protocol):
    """The driver's end of the mailbox (`trainables/worker/mailbox.py`)."""

    def exchange(self, orders: Orders, verdicts: Verdicts) -> tuple[Messages, Messages]:
        """Send the answers and wait for news. Return the workers' calls for orders and pings, and their messages."""


class EndListener(Protocol):
    def trial_ended(self, trial_id: str) -> None:
        """Called when a trial has ended and its end is in the ledger."""


class Controller:
    """Applies trial reports to a sweep and assigns its trials to the device workers in `pool`.

    `listener` is told of each ended trial. With a `time_budget`, the searches end early enough to train the finals.
    """

    def __init__(
        self,
        sweep: Sweep,
        mailbox: DriverMailbox,
        paths: TrialPaths,
        listener: EndListener,
        pool: WorkerPool,
        time_budget: TimeBudget | None = None,
        watchdog: Watchdog | None = None,
    ):
        self._sweep, self._mailbox, self._paths, self._listener = sweep, mailbox, paths, listener
        self._pool, self._time_budget = pool, time_budget
        self._watchdog = watchdog or Watchdog()
        # By worker: why its process has to be ended. Those in `_to_end` have not been returned by `take_hanging` yet.
        self._hanging: dict[str, str] = {}
        self._to_end: set[str] = set()
        self._lock = threading.RLock()
        self._held: list[Trial] = []  # trials that wait for a device of their own
        self._most_startable = 0
        # By worker that is to end: its trials, which go on elsewhere once it has ended.
        self._moving: dict[str, list[str]] = {}
        # The number of workers that the sweep may have beside other sweeps on the cluster; None: any.
        self.limit: int | None = None
        self._closed = False
        self._errors: Counter[str] = Counter()  # of trials, by trial id
        self._environment_errors: Counter[str] = Counter()  # by trial id, and by node since its last report
        self._ended: list[str] = []  # ids of trials whose end is not durable yet
        self._warned: set[str] = set()  # nodes whose last report came with a warning
        # Why the machines are not fit for the sweep; "" if they are. The sweep is then draining.
        self.environment_error = ""
        self.error: Exception | None = None

    def run(self) -> None:
        """Exchange messages until `close` is called. An exception ends the loop and is stored in `error`."""
        orders: Orders = {}
        verdicts: Verdicts = {}
        try:
            while not self._closed:
                calls, messages = self._mailbox.exchange(orders, verdicts)
                with self._lock:
                    orders, verdicts = self.serve(calls, messages)
        except Exception as error:  # raised again in the main thread by `TuneRunner`
            self.error = error

    def serve(self, calls: Messages, messages: Messages) -> tuple[Orders, Verdicts]:
        """Apply the messages, assign trials to workers that wait, and return the answers. All is then in the ledger."""
        with self._sweep.transaction():
            if self._time_budget:
                self._time_budget.end_searches_when_due(self._sweep, self._pool.slots)
            for call in calls:
                if not self._watchdog.note(call) or "activity" in call:
                    continue  # a late call of a process that ended, or a ping
                self._take_back(self._pool.greet(call), "its process died")
                if call.get("unfit"):
                    log.error("node %s is set aside: %s", call["node"], call["unfit"])
            verdicts = {(message["process"], message["id"]): self._apply(message) for message in messages}
            self._check_machines()
            orders = self._assign()
            self._look_for_hanging()
        self._tell_ended()
        return orders, verdicts

    def take_hanging(self) -> set[str]:
        """Return the workers whose processes have to be ended because they hang. Their ends are told by `worker_died`."""
        with self._lock:
            to_end, self._to_end = self._to_end, set()
            return to_end

    def grow_workers(self) -> int:
        """Return the number of trials that could use a device of their own: the largest number that could run at once so far.

        It does not decrease, since opening a worker takes seconds and keeping it costs little. It is 0 if no trial will be
        started any more.
        """
        with self._lock:
            self._most_startable = 0 if self._sweep.over else max(self._most_startable, self._sweep.startable)
            return self._most_startable

    @property
    def num_workers(self) -> int:
        """The number of workers that have asked for orders."""
        with self._lock:
            return len(self._pool)

    def worker_died(self, worker: str, reason: str, node_died: bool) -> bool:
        """Have the trials of a worker whose process ended trained again. They count a death, unless their node was lost.

        Returns whether that process had asked for orders, so that it had started.
        """
        with self._lock:
            had_started = self._pool.knows(worker)
            self._watchdog.forget(worker)
            self._to_end.discard(worker)
            reason = self._hanging.pop(worker, reason)
            with self._sweep.transaction():
                self._take_back(self._pool.lose(worker, counted=not node_died), reason)
            self._tell_ended()
            self._move_trials(worker)
        return had_started

    def worker_ended(self, worker: str) -> None:
        """Have the trials that a worker had to leave trained elsewhere, now that it has ended."""
        with self._lock:
            self._pool.end(worker)
            self._move_trials(worker)

    def limit_workers(self, limit: int | None) -> None:
        """Keep at most so many workers. Trials of the others go on elsewhere after their epoch."""
        with self._lock:
            self.limit = limit
            if limit is not None:
                self._pool.keep(limit)

    def drain(self, reason: str) -> None:
        """Start no more trials. Running trials may finish their current epoch."""
        with self._lock:
            self._sweep.drain(reason)

    def stop_as_unfit(self, reason: str) -> None:
        """Start no more trials, because machines or disks are not fit for the sweep. Trials that run may finish their epoch."""
        with self._lock:
            if not self.environment_error:
                self.environment_error = reason
                self._sweep.drain("environment")

    def progress(self) -> tuple[CellSnapshot, ...]:
        """Return the progress of each cell. May be called from any thread."""
        with self._lock:
            return self._sweep.snapshot()

    def name_of(self, trial_id: str) -> str:
        """Return cell and configuration of a trial."""
        return TrialNames(self._sweep.space).trial(self._sweep.entry(trial_id).trial)

    def close(self) -> None:
        self._closed = True

    def _move_trials(self, worker: str) -> None:
        for trial_id in self._moving.pop(worker, ()):
            self._sweep.requeue_trial(trial_id)

    def _look_for_hanging(self) -> None:
        for worker, reason in self._watchdog.find_hanging(self._pool.idle).items():
            log.error("%s, and is replaced", reason)
            self._hanging[worker] = reason
            self._to_end.add(worker)

    def _tell_ended(self) -> None:
        """Tell of the trials whose ends have just become durable."""
        with self._lock:
            ended, self._ended = self._ended, []
        for trial_id in ended:
            self._listener.trial_ended(trial_id)

    def _apply(self, message: Mapping[str, Any]) -> bool:
        """Apply a message and return whether its trial should go on. A worker that has lost the trial to another one may not."""
        trial_id, process = message["id"], message["process"]
        if not self._pool.has(trial_id, process):
            return False
        if "progress" in message:
            return self._record(message)
        node = self._pool.node_of(process)
        self._pool.release(trial_id, crowded="crowded" in message)
        if self._sweep.entry(trial_id).outcome:
            return False
        if "environment_error" in message:
            self._unfit(trial_id, node, message["environment_error"])
        elif "error" in message:
            self._errors[trial_id] += 1
            if self._errors[trial_id] > RETRIES:
                self._fail(trial_id, message["error"])
                return False
        self._sweep.requeue_trial(trial_id)
        return False

    def _record(self, message: Mapping[str, Any]) -> bool:
        trial_id = message["id"]
        node = self._pool.node_of(message["process"])
        self._environment_errors.pop(node, None)
        if "warning" in message and node not in self._warned:
            log.warning("%s on node %s: %s", self.name_of(trial_id), node, message["warning"])
        (self._warned.add if "warning" in message else self._warned.discard)(node)
        outcome = Outcome.from_json(message["outcome"]) if message["outcome"] else None
        test = TestResult.from_json(message["test"]) if message["test"] else None
        goes_on = self._sweep.record(trial_id, Progress.from_json(message["progress"]), outcome, test)
        goes_on = goes_on and not self._sweep.draining
        if goes_on and self._pool.is_leaving(trial_id):
            # Not at once, because its worker may train, and write, one more epoch until it reads the answer.
            self._moving.setdefault(message["worker"], []).append(trial_id)
            goes_on = False
        if not goes_on:
            self._pool.release(trial_id)
        if self._sweep.entry(trial_id).outcome:
            self._ended.append(trial_id)
        return goes_on

    def _fail(self, trial_id: str, reason: str) -> None:
        """End a trial as FAILED, for a `reason` that a retry would not remove."""
        self._sweep.fail(trial_id, reason)
        self._ended.append(trial_id)

    def _take_back(self, trials: Iterable[Trial], reason: str) -> None:
        """Have trials of a process that ended trained again, or fail those that were with too many such processes."""
        for trial in trials:
            if self._sweep.entry(trial.id).outcome:
                continue
            if self._pool.died_too_often(trial.id):
                often = f"its worker died {DEATHS} times while training it, the last times with no other trial"
                self._fail(trial.id, f"{often} ({reason})")
            else:
                log.warning("%s will be trained again: %s", self.name_of(trial.id), reason)
                self._sweep.requeue_trial(trial.id)

    def _unfit(self, trial_id: str, node: str, reason: str) -> None:
        """Note that a machine cannot train a trial, which has no result then. The node is set aside if others are fit.

        After `TRIES` such errors of one trial, or of the only node, the sweep is drained, and `environment_error` is the reason,
        unless workers of other nodes may still come.
        """
        log.warning("%s will be trained again: %s", self.name_of(trial_id), reason)
        self._environment_errors.update((trial_id, node))
        too_many = max(self._environment_errors[trial_id], self._environment_errors[node]) >= TRIES
        waits = too_many and self._pool.expects_more
        if waits or self._pool.fit_nodes() - {node}:
            log.error("node %s is set aside: %s", node, reason)
            self._pool.set_aside(node, reason)
        if waits:
            del self._environment_errors[trial_id]
        elif too_many:
            self.stop_as_unfit(reason)

    def _check_machines(self) -> None:
        reason = self._pool.why_unfit()
        if reason:
            self.stop_as_unfit(reason)

    def _assign(self) -> Orders:
        """Return the orders of the workers that get trials, or that are no longer needed. The others keep waiting."""
        jobs: dict[str, list[Trial]] = {}
        wanted = self._sweep.startable
        trials, self._held = self._held, []
        self._pool.clear_reservation()  # the trial that has one may be over, or another device emptier by now
        while trials or self._pool.has_room(wanted):
            trial = trials.pop(0) if trials else self._sweep.next_trial()
            if not isinstance(trial, Trial):
                break
            if self._sweep.over or self._sweep.entry(trial.id).outcome:
                continue
            worker = self._pool.place(trial, wanted)
            if worker is None:
                self._held.append(trial)
            else:
                jobs.setdefault(worker, []).append(trial)
        orders: Orders = {
            worker: {"jobs": [self._paths.job(each) for each in given], "close": False}
            for worker, given in jobs.items()
        }
        for worker in self._pool.idle if self._sweep.over and not self._held else self._pool.left:
            orders[worker] = {"jobs": [], "close": True}
            self._watchdog.forget(worker)
        for worker in orders:
            self._pool.answered(worker)
        return orders
