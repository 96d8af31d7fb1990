"""The state of a sweep, computed from the records of its ledger: trials with their progress, current winners, time spent.

It depends on the records alone, not on files, threads or clocks. Other modules get what they need of a ledger from here; only
`orchestrator/search/sweep.py` replays the events itself, because the Optuna studies must be told of every trial in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.events import (
    CheckpointMeasured,
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
from search_spaces.records import BUDGET, Outcome, SearchKey, Trial


@dataclass(kw_only=True, slots=True)
class TrialHistory:
    """A trial, the number and the seconds of its reported epochs, and its outcome, which is None until the trial ends."""

    trial: Trial
    epochs: int = 0
    seconds: float = 0.0
    outcome: Outcome | None = None


class SweepHistory:
    """The state of a sweep after the records that were applied. Its attributes change in `apply` only."""

    def __init__(self, records: Iterable[LedgerRecord] = ()):
        self.openings: list[SweepOpened] = []
        # By trial id, in the order of the TrialAsked events.
        self.trials: dict[str, TrialHistory] = {}
        # Trial ids of the current winners. A search that was resumed has none until it ends again.
        self.winners: dict[SearchKey, str] = {}
        # The time budget that has ended the searches, unless they were resumed since.
        self.ended_early: SearchesEndedEarly | None = None
        # Seconds of the slowest epoch of each cell, and of its slowest trial that ran to its end.
        self.slowest_epoch: dict[Cell, float] = {}
        self.slowest_trial: dict[Cell, float] = {}
        # Ids of the trials whose checkpoint was measured after their last end.
        self.measured: set[str] = set()
        self._earlier_seconds = self._opened = self._last = 0.0
        for record in records:
            self.apply(record)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest that the sweep's last driver recorded."""
        return self.openings[-1].manifest

    @property
    def seconds_spent(self) -> float:
        """Total seconds for which drivers worked on the sweep; each driver counts from its first to its last record."""
        return self._earlier_seconds + self._last - self._opened

    def apply(self, record: LedgerRecord) -> None:
        """Apply the next record. Raises ValueError if it is about a trial without an earlier TrialAsked event."""
        if isinstance(record.event, SweepOpened) or not self._last:
            self._earlier_seconds, self._opened = self.seconds_spent, record.time
        self._last = record.time
        apply = _APPLY.get(type(record.event))
        if apply:
            apply(self, record.event)

    def trial(self, trial_id: str) -> TrialHistory:
        """Return the history of a trial. Raises ValueError if no TrialAsked event has this id."""
        if trial_id not in self.trials:
            raise ValueError(f"is about trial {trial_id[:80]!r}, which no earlier record asks for")
        return self.trials[trial_id]

    def _open(self, event: SweepOpened) -> None:
        self.openings.append(event)

    def _ask(self, event: TrialAsked) -> None:
        # If a winner is replaced and later wins again, the same final is asked for again and its history starts anew.
        self.trials[event.id] = TrialHistory(trial=event.trial)

    def _start(self, event: TrialStarted) -> None:
        self.trial(event.id)

    def _report(self, event: EpochReported) -> None:
        found, seconds = self.trial(event.id), event.progress.seconds
        found.epochs, found.seconds = found.epochs + 1, found.seconds + seconds
        cell = found.trial.cell
        self.slowest_epoch[cell] = max(self.slowest_epoch.get(cell, 0.0), seconds)

    def _end(self, event: TrialEnded) -> None:
        found = self.trial(event.id)
        found.outcome = event.outcome
        self.measured.discard(event.id)
        if event.outcome.state == "DONE":
            cell = found.trial.cell
            self.slowest_trial[cell] = max(self.slowest_trial.get(cell, 0.0), found.seconds)

    def _measure(self, event: CheckpointMeasured) -> None:
        self.trial(event.id)
        self.measured.add(event.id)

    def _choose(self, event: WinnerChosen) -> None:
        self.winners[event.cell, self.trial(event.id).trial.search] = event.id

    def _end_early(self, event: SearchesEndedEarly) -> None:
        self.ended_early = event

    def _resume(self, event: SearchesResumed) -> None:
        self.ended_early = None
        resumed = set(event.search_keys)
        for key in resumed:
            self.winners.pop(key, None)
        for found in self.trials.values():
            if found.trial.search_key in resumed and found.outcome and found.outcome.reason == BUDGET:
                found.outcome = None


# Other events do not change the state.
_APPLY: Mapping[type, Callable[[SweepHistory, Any], None]] = {
    SweepOpened: SweepHistory._open,
    TrialAsked: SweepHistory._ask,
    TrialStarted: SweepHistory._start,
    EpochReported: SweepHistory._report,
    TrialEnded: SweepHistory._end,
    CheckpointMeasured: SweepHistory._measure,
    WinnerChosen: SweepHistory._choose,
    SearchesEndedEarly: SweepHistory._end_early,
    SearchesResumed: SweepHistory._resume,
}
