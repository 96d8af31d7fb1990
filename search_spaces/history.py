"""The state of a sweep according to its ledger: trials with their progress, current winners, time spent.

A fold over the records in order, without files, threads or clocks. Questions about a ledger are answered here.
(`orchestrator/search/sweep.py` alone goes through the events itself, since a study has to be told of them one by one.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.events import (
    CheckpointMeasured,
    DevicesShared,
    EpochReported,
    LedgerRecord,
    SearchesEndedEarly,
    SearchesResumed,
    SweepOpened,
    TrialAsked,
    TrialEnded,
    TrialStarted,
    WinnerChosen,
)
from search_spaces.language import Cell
from search_spaces.records import BUDGET, Outcome, Progress, Trial


@dataclass(kw_only=True)
class TrialHistory:
    """A trial, its reports, and its outcome, None while it has not ended."""

    trial: Trial
    curve: list[Progress] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True)
class TimedEpoch:
    """An epoch that this sweep has trained, on a device of this name that `per_device` trials shared."""

    trial: Trial
    device: str
    per_device: int
    seconds: float


class SweepHistory:
    """The state of a sweep after some records. Only `apply` changes its attributes."""

    def __init__(self, records: Iterable[LedgerRecord] = ()):
        self.openings: list[SweepOpened] = []
        # By trial id, in the order in which they were asked for.
        self.trials: dict[str, TrialHistory] = {}
        # Trial ids of the current winners. A resumed search has none until it ends again.
        self.winners: dict[Cell, str] = {}
        # The time budget that has ended the searches, unless they were resumed since.
        self.ended_early: SearchesEndedEarly | None = None
        # Seconds of the slowest epoch of each cell, and of its slowest trial that ran to its end.
        self.slowest_epoch: dict[Cell, float] = {}
        self.slowest_trial: dict[Cell, float] = {}
        self.timed_epochs: list[TimedEpoch] = []
        # For each trial started in this sweep: its last device, and the number of trials on it.
        self._started: dict[str, tuple[str, int]] = {}
        self._per_device = 0
        self._earlier_seconds = self._opened = self._last = 0.0
        for record in records:
            self.apply(record)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest of the driver that worked on the sweep last."""
        return self.openings[-1].manifest

    @property
    def seconds_spent(self) -> float:
        """Seconds that drivers have worked on the sweep, each from its first record to its last."""
        return self._earlier_seconds + self._last - self._opened

    def apply(self, record: LedgerRecord) -> None:
        """Apply the next record. Raise ValueError for a trial that the ledger has not asked for before."""
        if isinstance(record.event, SweepOpened) or not self._last:
            self._earlier_seconds, self._opened = self.seconds_spent, record.time
        self._last = record.time
        apply = _APPLY.get(type(record.event))
        if apply:
            apply(self, record.event)

    def trial(self, trial_id: str) -> TrialHistory:
        """Return a trial that was asked for. Raise ValueError when it was not."""
        if trial_id not in self.trials:
            raise ValueError(f"is about trial {trial_id[:80]!r}, which no earlier record asks for")
        return self.trials[trial_id]

    def _open(self, event: SweepOpened) -> None:
        self.openings.append(event)

    def _share(self, event: DevicesShared) -> None:
        self._per_device = event.per_device

    def _ask(self, event: TrialAsked) -> None:
        # A final is asked for a second time if its winner was replaced and won again. It starts anew.
        self.trials[event.id] = TrialHistory(trial=event.trial)

    def _start(self, event: TrialStarted) -> None:
        self.trial(event.id)
        if self._per_device:
            device = self.manifest.get("device", "") if self.openings else ""
            self._started[event.id] = device, self._per_device

    def _report(self, event: EpochReported) -> None:
        found, seconds = self.trial(event.id), event.progress.seconds
        found.curve.append(event.progress)
        cell = found.trial.cell
        self.slowest_epoch[cell] = max(self.slowest_epoch.get(cell, 0.0), seconds)
        # An epoch of a trial that was not started here was trained by another sweep.
        if event.id in self._started:
            device, per_device = self._started[event.id]
            epoch = TimedEpoch(trial=found.trial, device=device, per_device=per_device, seconds=seconds)
            self.timed_epochs.append(epoch)

    def _end(self, event: TrialEnded) -> None:
        found = self.trial(event.id)
        found.outcome = event.outcome
        if event.outcome.state == "DONE":
            cell, seconds = found.trial.cell, sum(progress.seconds for progress in found.curve)
            self.slowest_trial[cell] = max(self.slowest_trial.get(cell, 0.0), seconds)

    def _measure(self, event: CheckpointMeasured) -> None:
        self.trial(event.id)

    def _choose(self, event: WinnerChosen) -> None:
        self.trial(event.id)
        self.winners[event.cell] = event.id

    def _end_early(self, event: SearchesEndedEarly) -> None:
        self.ended_early = event

    def _resume(self, event: SearchesResumed) -> None:
        self.ended_early = None
        for cell in event.cells:
            self.winners.pop(cell, None)
        for found in self.trials.values():
            if found.trial.cell in event.cells and found.outcome and found.outcome.reason == BUDGET:
                found.outcome = None


# Other events do not change the state.
_APPLY: Mapping[type, Callable[[SweepHistory, Any], None]] = {
    SweepOpened: SweepHistory._open,
    DevicesShared: SweepHistory._share,
    TrialAsked: SweepHistory._ask,
    TrialStarted: SweepHistory._start,
    EpochReported: SweepHistory._report,
    TrialEnded: SweepHistory._end,
    CheckpointMeasured: SweepHistory._measure,
    WinnerChosen: SweepHistory._choose,
    SearchesEndedEarly: SweepHistory._end_early,
    SearchesResumed: SweepHistory._resume,
}
