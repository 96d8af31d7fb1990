"""The time budget of a sweep, `--budget 40h`: when its searches have to end for the finals to be in time.

The searches of all cells end at one moment, which is in the ledger: what has been decided does not depend on a clock again.
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
    """Seconds since now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began


class TimeBudget:
    """`text` as given; `history` of the sweep; `clock`: seconds that all drivers of the sweep have worked on it."""

    def __init__(self, text: str, history: SweepHistory, clock: Callable[[], float]):
        self.text, self.seconds = text, seconds(text)
        self._durations, self._clock = Durations(history), clock

    def allows_more_than(self, ended_early: SearchesEndedEarly) -> bool:
        """Whether searches that another budget ended may go on."""
        return self.seconds > ended_early.allowed

    def end_searches_when_due(self, sweep: Sweep, slots: int) -> None:
        """End the searches of the sweep once no more time is left than the finals need, which are trained `slots` at once."""
        if sweep.ended_early or all(search.searched for search in sweep.cells.values()):
            return
        spent, needed = self._clock(), reserve(sweep, self._durations, slots)
        if spent + needed >= self.seconds:
            event = SearchesEndedEarly(budget=self.text, allowed=self.seconds, spent=spent, needed=needed)
            sweep.end_searches_early(event)


def reserve(sweep: Sweep, durations: Durations, slots: int) -> float:
    """Seconds from the end of all searches to the end of the sweep, as far as can be told; 0 before the first epoch.

    Each running trial of a search reports once more, a cell without a trial to choose from runs one for an epoch, then all
    missing finals are trained, the longest last, which is the worst order.
    """
    epochs = sweep.space.recipe.epochs
    unfinished = [search for search in sweep.cells.values() if not search.finished]
    first = max((durations.epoch(search.cell) for search in unfinished if not search.searched), default=0.0)
    return first + greedy((job for search in unfinished for job in _jobs(search, durations, epochs)), slots)


def greedy(jobs: Iterable[float], slots: int) -> float:
    """Seconds until jobs of these lengths, shortest first, are done on so many slots that never idle."""
    ends = [0.0] * slots
    for job in sorted(jobs):
        heapreplace(ends, ends[0] + job)
    return max(ends)


def _jobs(search: CellSearch, durations: Durations, epochs: int) -> list[float]:
    """What a cell has still to train once its search ends, in seconds."""
    whole = durations.whole(search.cell, epochs)
    running = [entry for entry in search.finals if entry.outcome is None]
    jobs = [whole - min(whole, sum(p.seconds for p in entry.curve)) for entry in running]
    jobs += [whole] * (search.budget.final_seeds - len(search.finals))
    return jobs if search.searched else jobs + [durations.epoch(search.cell)] * max(1, search.num_running)
