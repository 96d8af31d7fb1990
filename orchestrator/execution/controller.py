"""The driver's side of the desk: one thread that enters what trials report, and says what each place trains next.

It takes whatever has come in since it last looked, decides on all of it, makes that durable with one write, and answers. All of
the sweep's decisions are taken in this thread or under its lock. Knows nothing of Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.search.sweep import Sweep
from search_spaces.records import Outcome, Progress, TestResult, Trial

Jobs = dict[str, dict[str, Any] | None]
Verdicts = dict[str, bool]
# Gives the answers, waits for news: places that ask, reports.
Take = Callable[[Jobs, Verdicts], tuple[Sequence[str], Sequence[Mapping[str, Any]]]]


class Controller:
    """`describe`: what a place needs to train a trial. `ended`: told of each trial whose end is durable. `look`: called before
    anything is decided.

    A place is where one trial at a time is trained: a trial of Tune's, which may be moved when its process dies.
    """

    def __init__(
        self,
        sweep: Sweep,
        take: Take,
        describe: Callable[[Trial], dict[str, Any]],
        ended: Callable[[str], None],
        look: Callable[[], None] = lambda: None,
    ):
        self._sweep, self._take, self._describe, self._ended, self._look = sweep, take, describe, ended, look
        self._turn = threading.RLock()
        self._at: dict[str, Trial] = {}
        self._idle: list[str] = []
        self._most = 0
        self._closed = False
        self.error: Exception | None = None

    def run(self) -> None:
        """Serve until `close`. What goes wrong is kept in `error`, for somebody to look at."""
        jobs: Jobs = {}
        verdicts: Verdicts = {}
        try:
            while not self._closed:
                asked, reports = self._take(jobs, verdicts)
                with self._turn:
                    jobs, verdicts = self.serve(asked, reports)
        except Exception as error:  # this thread's failure is the run's
            self.error = error

    def serve(self, asked: Sequence[str], reports: Sequence[Mapping[str, Any]]) -> tuple[Jobs, Verdicts]:
        """Enter the reports, then hand out what may start now; both are durable when this returns."""
        with self._sweep.together():
            self._look()
            verdicts = self._enter(reports)
            self._idle += [place for place in asked if place not in self._idle]
            jobs = self._assign()
        for trial_id in verdicts:
            if self._sweep.entry(trial_id).outcome:
                self._ended(trial_id)
        return jobs, verdicts

    def wanted(self) -> int:
        """How many places there should be. It never falls: a place costs a second to open and nothing to keep.

        0 once nothing will be started any more.
        """
        with self._turn:
            self._most = 0 if self._sweep.over else max(self._most, self._sweep.startable)
            return self._most

    def vacate(self, place: str) -> str:
        """The place is over. Returns the id of the trial that was there, "" if there was none."""
        with self._turn:
            trial = self._at.pop(place, None)
            return trial.id if trial else ""

    def fail(self, trial_id: str, reason: str) -> None:
        """A trial that no retry could train to its end."""
        with self._turn:
            self._sweep.fail(trial_id, reason)
            self._ended(trial_id)

    def drain(self, reason: str) -> None:
        with self._turn:
            self._sweep.drain(reason)

    def close(self) -> None:
        self._closed = True

    def _enter(self, reports: Sequence[Mapping[str, Any]]) -> Verdicts:
        verdicts: Verdicts = {}
        for report in reports:
            outcome = Outcome.from_json(report["outcome"]) if report["outcome"] else None
            test = TestResult.from_json(report["test"]) if report["test"] else None
            goes_on = self._sweep.record(report["id"], Progress.from_json(report["progress"]), outcome, test)
            verdicts[report["id"]] = goes_on and not self._sweep.draining
        return verdicts

    def _assign(self) -> Jobs:
        """Trials for the places that have none, as far as there are any; None for places that are not needed any more."""
        jobs: Jobs = {}
        # Places that ask again, because their process died, go on with the trial they had; they come first.
        self._idle.sort(key=lambda place: place not in self._at)
        while self._idle:
            place = self._idle[0]
            trial = self._kept(self._at[place]) if place in self._at else self._sweep.suggest()
            if trial == "wait":
                break
            self._idle.pop(0)
            if isinstance(trial, Trial):
                self._at[place] = trial
            jobs[place] = self._describe(trial) if isinstance(trial, Trial) else None
        return jobs

    def _kept(self, trial: Trial) -> Trial | None:
        return None if self._sweep.draining or self._sweep.entry(trial.id).outcome else trial
