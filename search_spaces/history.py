"""What a sweep's ledger says: which trials there are, how far they came, which winners stand, what time was spent.

A fold over the records, in their order; it knows no file, no thread and no clock. Whatever asks a question about a ledger asks
it here. (`orchestrator/search/sweep.py` alone goes through the events itself: a study has to be told of them one by one.)
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
    """A trial that was asked for, what it reported, and how it ended; `outcome` is None while it has not."""

    trial: Trial
    curve: list[Progress] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True)
class TimedEpoch:
    """An epoch that was trained in this sweep, on a device of this name that `per_device` trials shared."""

    trial: Trial
    device: str
    per_device: int
    seconds: float


class SweepHistory:
    """The state of a sweep after some records. Attributes are for reading; `apply` alone changes them."""

    def __init__(self, records: Iterable[LedgerRecord] = ()):
        self.openings: list[SweepOpened] = []
        # By trial id, in the order in which they were asked for.
        self.trials: dict[str, TrialHistory] = {}
        # Trial ids of the winners that stand: a search that was resumed has none until it ends again.
        self.winners: dict[Cell, str] = {}
        # The time budget that has ended the searches, unless they were resumed since.
        self.ended_early: SearchesEndedEarly | None = None
        # Seconds of the slowest epoch of each cell, and of its slowest trial that ran to its end.
        self.slowest_epoch: dict[Cell, float] = {}
        self.slowest_trial: dict[Cell, float] = {}
        self.timed_epochs: list[TimedEpoch] = []
        # Device and trials on it of each trial that was started here, when it was last.
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
        """Enter the next record. Raise ValueError when it is about a trial that was never asked for."""
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
        # A final whose winner was dropped and won again is asked for a second time, and starts anew.
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


# Events that are not here change nothing that is asked for.
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
