"""What a search of a cell has done and has left to do at one moment, as values that need no lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search_spaces.language import Cell
from search_spaces.records import Trial

if TYPE_CHECKING:
    from orchestrator.search.cell import CellSearch, TrialEntry


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that has not ended: its reported epochs, their seconds, and the peak memory of its process in MiB (0: unknown)."""

    trial: Trial
    epochs: int
    seconds: float
    memory_mib: float


@dataclass(frozen=True, kw_only=True)
class CellSnapshot:
    """The progress of a search at one moment: numbers of trials by state (search and finals together), and durations.

    best: best validation score in percent points of the search trials that were trained to the last epoch, None without any.
    search_left, finals_left: trials that have not ended, running ones included. search_seconds, final_seconds: seconds of
    training of each ended search trial and final that this sweep trained itself; whole_seconds: of those of the search trials
    that were trained to their end. epochs, epoch_seconds: epochs that this sweep trained itself, and their mean duration in
    seconds (0 without any).
    """

    cell: Cell
    search: int
    phase: Literal["search", "finals", "finished"]
    done: int
    stopped: int
    failed: int
    total: int  # search trials and finals; without finals once the search has ended without a winner
    running: tuple[RunningTrial, ...]
    best: float | None
    search_left: int
    finals_left: int
    in_flight: int  # search trials that may run at once
    most_epochs: int  # of a trial
    asha_epochs: float  # mean of a search trial if ASHA stops as many as it is meant to
    search_seconds: tuple[float, ...]
    whole_seconds: tuple[float, ...]
    final_seconds: tuple[float, ...]
    epochs: int
    epoch_seconds: float

    @property
    def num_ended(self) -> int:
        return self.done + self.stopped + self.failed


def take_snapshot(search: CellSearch) -> CellSnapshot:
    """Return the progress of a search. Call it under the lock that guards the sweep."""
    states = [entry.outcome.state for entry in search.entries if entry.outcome]
    done = [e.outcome.best_score for e in search.search if e.outcome and e.outcome.state == "DONE"]
    planned = len(search.search) if search.ended_early else search.planned
    finals = search.budget.final_seeds if search.winner or not search.searched else 0
    own = [entry.curve for entry in search.entries if not entry.cached]
    epochs = sum(map(len, own))
    return CellSnapshot(
        cell=search.cell,
        search=search.number,
        phase="finished" if search.finished else "finals" if search.searched else "search",
        done=states.count("DONE"),
        stopped=states.count("STOPPED"),
        failed=states.count("FAILED") + states.count("INVALID"),
        total=planned + finals,
        running=tuple(_running(entry) for entry in search.entries if entry.outcome is None),
        best=max(done, default=None),
        search_left=planned - sum(entry.outcome is not None for entry in search.search),
        finals_left=finals - sum(entry.outcome is not None for entry in search.finals),
        in_flight=search.in_flight,
        most_epochs=search.brackets.all[0].epochs,
        asha_epochs=search.asha_epochs,
        search_seconds=_durations([e for e in search.search if not e.cached and e.outcome]),
        whole_seconds=_durations(
            [e for e in search.search if not e.cached and e.outcome and e.outcome.state == "DONE"]
        ),
        final_seconds=_durations([e for e in search.finals if not e.cached and e.outcome]),
        epochs=epochs,
        epoch_seconds=sum(curve.seconds for curve in own) / epochs if epochs else 0.0,
    )


def _running(entry: TrialEntry) -> RunningTrial:
    return RunningTrial(
        trial=entry.trial,
        epochs=len(entry.curve),
        seconds=entry.curve.seconds,
        memory_mib=entry.curve.last.memory_mib if entry.curve.last else 0.0,
    )


def _durations(entries: Sequence[TrialEntry]) -> tuple[float, ...]:
    """Return the seconds of training of each trial that reported an epoch."""
    return tuple(entry.curve.seconds for entry in entries if len(entry.curve))
