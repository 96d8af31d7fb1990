"""The time budget of a sweep, `--budget 40h`: ends its searches early enough for the finals to be trained within the budget.

The searches of all cells end together, with one event in the ledger. A sweep that is continued uses that event, not the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from heapq import heapreplace

from orchestrator.search.cell import CellSearch
from orchestrator.search.durations import Durations, seconds
from orchestrator.search.sweep import Sweep
from search_spaces.events import SearchesEndedEarly
from search_spaces.history import SweepHistory


def stopwatch() -> Callable[[], float]:
    """Return a function that gives the seconds since this call."""
    began = time.monotonic()
    return lambda: time.monotonic() - began


class TimeBudget:
    """A time budget. `text` is the value of --budget, such as "40h" (ValueError if malformed).

    `clock` returns the seconds that all drivers of the sweep together have worked on it; `history` provides measured durations.
    """

    def __init__(self, text: str, history: SweepHistory, clock: Callable[[], float]):
        self.text, self.seconds = text, seconds(text)
        self._durations, self._clock = Durations(history), clock

    def allows_more_than(self, ended_early: SearchesEndedEarly) -> bool:
        """Return whether this budget is larger than the one that ended the searches, so that they may be resumed."""
        return self.seconds > ended_early.allowed

    def end_searches_when_due(self, sweep: Sweep, slots: int) -> None:
        """End the searches of the sweep if the time left only suffices for the finals, of which `slots` are trained at once."""
        if sweep.ended_early or all(search.searched for search in sweep.searches.values()):
            return
        spent, needed = self._clock(), reserve(sweep, self._durations, slots)
        if spent + needed >= self.seconds:
            event = SearchesEndedEarly(budget=self.text, allowed=self.seconds, spent=spent, needed=needed)
            sweep.end_searches_early(event)


def reserve(sweep: Sweep, durations: Durations, slots: int) -> float:
    """Estimate the seconds from ending all searches now to the end of the sweep; 0 if no epoch has been measured yet.

    The estimate contains one more epoch of each running search trial (at least one per cell that is still searched), and all
    missing finals. It assumes the worst order on the `slots`, with the longest jobs last.
    """
    epochs = sweep.space.recipe.epochs
    unfinished = [search for search in sweep.searches.values() if not search.finished]
    first = max((durations.epoch(search.cell) for search in unfinished if not search.searched), default=0.0)
    return first + greedy((job for search in unfinished for job in _jobs(search, durations, epochs)), slots)


def greedy(jobs: Iterable[float], slots: int) -> float:
    """Return the seconds until all jobs are done if each free slot takes the shortest job left. `jobs` are lengths in seconds."""
    ends = [0.0] * slots
    for job in sorted(jobs):
        heapreplace(ends, ends[0] + job)
    return max(ends)


def _jobs(search: CellSearch, durations: Durations, epochs: int) -> list[float]:
    """Return the seconds of each epoch or final that a cell still has to train if its search ends now."""
    whole = durations.whole(search.cell, epochs)
    running = [entry for entry in search.finals if entry.outcome is None]
    jobs = [whole - min(whole, entry.curve.seconds) for entry in running]
    jobs += [whole] * (search.budget.final_seeds - len(search.finals))
    return jobs if search.searched else jobs + [durations.epoch(search.cell)] * max(1, search.num_running)
