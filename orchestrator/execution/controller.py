"""The controller: the driver's thread that applies the trials' reports and assigns trials to worker slots.

It takes all messages that have arrived, decides on them, writes the decisions to the ledger at once, and answers. All decisions
on the sweep are taken in this thread or under its lock. Ray is not used here.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.search.snapshots import CellSnapshot
from orchestrator.search.sweep import Sweep
from orchestrator.search.time_budget import TimeBudget
from orchestrator.search.trial_names import TrialNames
from search_spaces.records import Outcome, Progress, TestResult, Trial

log = logging.getLogger(__name__)

# Number of times that a trial is given to a machine that cannot train it, before the sweep stops.
TRIES = 3
# By worker slot: the message with the trial to train (`TrialPaths.job`); None ends the slot.
Jobs = dict[str, dict[str, Any] | None]
# By trial id: whether the trial should go on after its report.
Verdicts = dict[str, bool]


class DriverMailbox(Protocol):
    """The driver's end of the mailbox (`trainables/worker/mailbox.py`)."""

    def exchange(self, jobs: Jobs, verdicts: Verdicts) -> tuple[Sequence[str], Sequence[Mapping[str, Any]]]:
        """Send the answers and wait for messages. Return the ids of worker slots that ask for a trial, and the reports."""

    def release(self, trial_id: str) -> None:
        """Tell the device worker of an ended trial to free the trial's memory."""


class EndListener(Protocol):
    def trial_ended(self, trial_id: str) -> None:
        """Called when a trial has ended and its end is in the ledger."""


class Controller:
    """Applies trial reports to a sweep and assigns its trials to worker slots.

    A worker slot is a trial in the sense of Ray Tune, in which trials of the sweep are trained one after the other. Its process
    may die and be replaced. `listener` is told of each ended trial. With a `time_budget`, the searches end early enough to train
    the finals, `num_slots` at once.
    """

    def __init__(
        self,
        sweep: Sweep,
        mailbox: DriverMailbox,
        paths: TrialPaths,
        listener: EndListener,
        time_budget: TimeBudget | None = None,
        num_slots: int = 1,
    ):
        self._sweep, self._mailbox, self._paths, self._listener = sweep, mailbox, paths, listener
        self._time_budget, self._num_slots = time_budget, num_slots
        self._lock = threading.RLock()
        self._assigned: dict[str, Trial] = {}  # by worker slot
        self._idle: list[str] = []  # worker slots that wait for a trial
        self._most_startable = 0
        self._closed = False
        self._environment_errors: Counter[str] = Counter()  # by trial id
        # Why the machines are not fit for the sweep; "" if they are. The sweep is then draining.
        self.environment_error = ""
        self.error: Exception | None = None

    def run(self) -> None:
        """Exchange messages until `close` is called. An exception ends the loop and is stored in `error`."""
        jobs: Jobs = {}
        verdicts: Verdicts = {}
        try:
            while not self._closed:
                asked, reports = self._mailbox.exchange(jobs, verdicts)
                with self._lock:
                    jobs, verdicts = self.serve(asked, reports)
        except Exception as error:  # raised again in the main thread by `TuneRunner`
            self.error = error

    def serve(self, asked: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> tuple[Jobs, Verdicts]:
        """Apply the reports, assign trials to the slots in `asked`, and return the answers. All is then in the ledger."""
        with self._sweep.transaction():
            if self._time_budget:
                self._time_budget.end_searches_when_due(self._sweep, self._num_slots)
            verdicts = self._apply(reports)
            self._idle += [slot for slot in asked if slot not in self._idle]
            jobs = self._assign()
        for trial_id in verdicts:
            if self._sweep.entry(trial_id).outcome:
                self._tell_ended(trial_id)
        for report in reports:
            if "environment_error" in report:
                self._mailbox.release(report["id"])
        return jobs, verdicts

    def grow_slots(self) -> int:
        """Return the number of worker slots to keep open: the largest number of trials that could run at once so far.

        It does not decrease, since opening a slot takes a second and keeping it costs nothing. It is 0 if no trial will be
        started any more.
        """
        with self._lock:
            self._most_startable = 0 if self._sweep.over else max(self._most_startable, self._sweep.startable)
            return self._most_startable

    def close_slot(self, slot: str) -> str:
        """Forget a worker slot that has ended; return the id of the trial that was assigned to it, "" if there was none."""
        with self._lock:
            trial = self._assigned.pop(slot, None)
            return trial.id if trial else ""

    def fail(self, trial_id: str, reason: str) -> None:
        """End a trial as FAILED, for a `reason` that a retry would not remove."""
        with self._lock:
            self._sweep.fail(trial_id, reason)
            self._tell_ended(trial_id)

    def requeue(self, trial_id: str, reason: str) -> None:
        """Have a trial trained again that could not be trained, for a `reason` that lies in its machine: it has no result.

        After `TRIES` such errors of one trial the sweep is drained, and `environment_error` is the reason.
        """
        with self._lock:
            if self._sweep.entry(trial_id).outcome:
                return
            log.warning("%s will be trained again: %s", self.name_of(trial_id), reason)
            for slot in [slot for slot, trial in self._assigned.items() if trial.id == trial_id]:
                del self._assigned[slot]
            self._sweep.requeue_trial(trial_id)
            self._environment_errors[trial_id] += 1
            if self._environment_errors[trial_id] >= TRIES and not self.environment_error:
                self.environment_error = reason
                self._sweep.drain("environment")

    def drain(self, reason: str) -> None:
        """Start no more trials. Running trials may finish their current epoch."""
        with self._lock:
            self._sweep.drain(reason)

    def progress(self) -> tuple[CellSnapshot, ...]:
        """Return the progress of each cell. May be called from any thread."""
        with self._lock:
            return self._sweep.snapshot()

    def name_of(self, trial_id: str) -> str:
        """Return cell and configuration of a trial."""
        return TrialNames(self._sweep.space).trial(self._sweep.entry(trial_id).trial)

    def close(self) -> None:
        self._closed = True

    def _tell_ended(self, trial_id: str) -> None:
        self._listener.trial_ended(trial_id)
        self._mailbox.release(trial_id)

    def _apply(self, reports: Sequence[Mapping[str, Any]]) -> Verdicts:
        verdicts: Verdicts = {}
        for report in reports:
            if "environment_error" in report:
                self.requeue(report["id"], report["environment_error"])
                verdicts[report["id"]] = False
                continue
            outcome = Outcome.from_json(report["outcome"]) if report["outcome"] else None
            test = TestResult.from_json(report["test"]) if report["test"] else None
            goes_on = self._sweep.record(report["id"], Progress.from_json(report["progress"]), outcome, test)
            verdicts[report["id"]] = goes_on and not self._sweep.draining
        return verdicts

    def _assign(self) -> Jobs:
        """Return the trials for idle worker slots, and None for slots that are no longer needed. The other slots keep waiting."""
        jobs: Jobs = {}
        # A slot that asks again, because its process died, continues its trial and comes first.
        self._idle.sort(key=lambda slot: slot not in self._assigned)
        while self._idle:
            slot = self._idle[0]
            trial = self._unfinished(self._assigned[slot]) if slot in self._assigned else self._sweep.next_trial()
            if trial == "wait":
                break
            self._idle.pop(0)
            if isinstance(trial, Trial):
                self._assigned[slot] = trial
            jobs[slot] = self._paths.job(trial) if isinstance(trial, Trial) else None
        return jobs

    def _unfinished(self, trial: Trial) -> Trial | None:
        return None if self._sweep.draining or self._sweep.entry(trial.id).outcome else trial
