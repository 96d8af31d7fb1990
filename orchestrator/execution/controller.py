"""The driver's thread that applies what trials report and assigns trials to worker slots.

It takes all messages that have come in, decides on them, makes the decisions durable with one write, and answers. All of the
sweep's decisions are taken in this thread or under its lock. Knows nothing of Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.search.cell import CellSnapshot
from orchestrator.search.sweep import Sweep
from orchestrator.search.time_budget import TimeBudget
from search_spaces.records import Outcome, Progress, TestResult, Trial

# By worker slot: the trial to train; None ends the slot.
Jobs = dict[str, dict[str, Any] | None]
# By trial id: whether the trial that reported goes on.
Verdicts = dict[str, bool]


class DriverMailbox(Protocol):
    """The driver's end of the mailbox (`trainables/worker/mailbox.py`)."""

    def exchange(self, jobs: Jobs, verdicts: Verdicts) -> tuple[Sequence[str], Sequence[Mapping[str, Any]]]:
        """Send the answers and wait for news; return the worker slots that ask for a trial, and the reports."""

    def release(self, trial_id: str) -> None:
        """Have the device worker of an ended trial free its memory."""


class EndListener(Protocol):
    def trial_ended(self, trial_id: str) -> None:
        """Act on the end of a trial, which is durable."""


class Controller:
    """Applies trial reports to a sweep and assigns its trials to worker slots.

    A worker slot is one trial of Tune's, in which one trial of the sweep after the other is trained; its process may die and be
    replaced. `listener` hears of each trial that ended. With a `time_budget`, searches end in time for the finals to be trained
    `num_slots` at once.
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
        self.error: Exception | None = None

    def run(self) -> None:
        """Serve until `close`. An exception ends the loop and is kept in `error`."""
        jobs: Jobs = {}
        verdicts: Verdicts = {}
        try:
            while not self._closed:
                asked, reports = self._mailbox.exchange(jobs, verdicts)
                with self._lock:
                    jobs, verdicts = self.serve(asked, reports)
        except Exception as error:  # this thread's failure is the run's
            self.error = error

    def serve(self, asked: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> tuple[Jobs, Verdicts]:
        """Apply the reports, then assign what may start now; both are durable when this returns."""
        with self._sweep.transaction():
            if self._time_budget:
                self._time_budget.end_searches_when_due(self._sweep, self._num_slots)
            verdicts = self._apply(reports)
            self._idle += [slot for slot in asked if slot not in self._idle]
            jobs = self._assign()
        for trial_id in verdicts:
            if self._sweep.entry(trial_id).outcome:
                self._tell_ended(trial_id)
        return jobs, verdicts

    def grow_slots(self) -> int:
        """Raise the number of worker slots to that of the trials that may run now, and return it.

        It never falls while anything may start, since a slot costs a second to open and nothing to keep; then it is 0.
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
        """End a trial that no retry could train to its end."""
        with self._lock:
            self._sweep.fail(trial_id, reason)
            self._tell_ended(trial_id)

    def drain(self, reason: str) -> None:
        """Start nothing new; what runs may finish its epoch."""
        with self._lock:
            self._sweep.drain(reason)

    def progress(self) -> tuple[CellSnapshot, ...]:
        """Return the numbers of every cell, for any thread."""
        with self._lock:
            return self._sweep.snapshot()

    def close(self) -> None:
        self._closed = True

    def _tell_ended(self, trial_id: str) -> None:
        self._listener.trial_ended(trial_id)
        self._mailbox.release(trial_id)

    def _apply(self, reports: Sequence[Mapping[str, Any]]) -> Verdicts:
        verdicts: Verdicts = {}
        for report in reports:
            outcome = Outcome.from_json(report["outcome"]) if report["outcome"] else None
            test = TestResult.from_json(report["test"]) if report["test"] else None
            goes_on = self._sweep.record(report["id"], Progress.from_json(report["progress"]), outcome, test)
            verdicts[report["id"]] = goes_on and not self._sweep.draining
        return verdicts

    def _assign(self) -> Jobs:
        """Return trials for the idle worker slots, as far as there are any; None for slots that are not needed any more."""
        jobs: Jobs = {}
        # Slots that ask again, because their process died, go on with the trial they had; they come first.
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
