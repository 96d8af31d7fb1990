"""Estimates how long a sweep still takes, as a range, from the durations of its trials so far.

The trials that are left are counted per cell, search trials and finals apart: the search of a cell, and its finals, are groups of
like trials. A group's trials are taken to last as long as its ended trials did on average. The spread of their durations around
these averages gives an 80 % prediction interval for the sum W over all that are left, with Student's t:

    W = sum over groups of m * mean,   variance(W) = v * sum of (m * mean^2) * (1 + m / n)

m: trials left in a group; n: its ended trials; v: pooled relative variance around the groups' means. The second term is the error
of the mean. A group without ended trials takes its running trials' epochs, else the mean of all groups, whose spread among each
other then counts.

W is divided by the number of trials that were trained at once so far (`WorkRate`), for the lower end by the number that may be.
If it takes longer, the range is that of the longest chain of trials of one cell, since a cell trains few at once. For the lower
end, ASHA is taken to stop as many of the trials left as it is meant to: early in a search it stops none. The upper end has one
trial more, which may be left alone at the end. tests/orchestrator/execution/test_time_left.py simulates sweeps.

A time budget, failures and other load on the machine are not foreseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean

from orchestrator.search.snapshots import CellSnapshot
from search_spaces.events import EpochReported, LedgerRecord, TrialStarted

LEVEL = 0.8  # share of such intervals that hold the true value


class WorkRate:
    """Measures how many trials this run trains at once: seconds of reported epochs per second since the first trial started."""

    def __init__(self) -> None:
        self._started: set[str] = set()
        self._began = self._seconds = self.last_report = 0.0

    def apply(self, record: LedgerRecord) -> None:
        """Take note of a new record. Epochs of trials that were not started in this run are cached and took no time."""
        if isinstance(record.event, TrialStarted):
            self._began = self._began or record.time
            self._started.add(record.event.id)
        elif isinstance(record.event, EpochReported) and record.event.id in self._started:
            self._seconds += record.event.progress.seconds
            self.last_report = record.time

    @property
    def concurrency(self) -> float:
        """The number of trials at once on average; 0 before the first report."""
        seconds = self.last_report - self._began
        return self._seconds / seconds if seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class TrialGroup:
    """Trials of one cell of which `left` have not ended. `begun`: seconds that these have been trained already.

    ended: durations of such trials in seconds, of which the last `num_own` are of this group. expected: duration of a whole
    trial by its epochs so far, 0 without any. asha_share: mean duration as a share of a whole trial's if ASHA stops as many as it
    is meant to, 1 for finals. at_once: how many of the trials may run at once.
    """

    left: int
    begun: float
    ended: tuple[float, ...]
    num_own: int
    expected: float
    asha_share: float
    at_once: int

    @property
    def mean(self) -> float:
        """Mean duration of a trial in seconds, 0 if nothing of the group was measured."""
        return fmean(self.ended) if self.ended else self.expected


def time_left(found: Sequence[CellSnapshot], concurrency: float, slots: int) -> tuple[float, float] | None:
    """Return the ends of the range in seconds; None while too little was measured, that is, before the second ended trial.

    `concurrency` is that of `WorkRate`; `slots` is the number of trials that the devices train at once.
    """
    chains = [(_searches(cell), _finals(cell)) for cell in found]
    groups = [group for chain in chains for group in chain]
    spread = _spread(groups)
    if spread is None or concurrency <= 0:
        return None
    if not any(group.left for group in groups):
        return 0.0, 0.0
    low, high = _interval([(group, group.left) for group in groups], spread)
    ends = [_interval([(g, ceil(g.left / min(g.at_once, slots))) for g in chain], spread) for chain in chains]
    startable = sum(next((min(g.left, g.at_once) for g in chain if g.left), 0) for chain in chains)
    last = max(spread.mean_of(group) for group in groups if group.left) * (1 - 1 / slots)
    low = max(low / max(concurrency, min(slots, startable)), *(first for first, _ in ends))
    return low, max(high / concurrency, *(end for _, end in ends)) + last


def _interval(parts: Sequence[tuple[TrialGroup, int]], spread: Spread) -> tuple[float, float]:
    """Return the interval of the sum of so many trials of each group, without what running trials were trained already."""
    work = least = error = 0.0
    for group, m in parts:
        mean, n = spread.mean_of(group), len(group.ended) or bool(group.expected)
        work += max(0.0, m * mean - group.begun)
        least += max(0.0, m * min(mean, group.asha_share * (group.expected or mean)) - group.begun)
        error += mean**2 * (spread.within * (m + m * m / n) if n else spread.within * m + spread.between * m * m)
    half = spread.quantile * sqrt(error)
    return max(0.0, least - half), work + half


def _searches(cell: CellSnapshot) -> TrialGroup:
    running = [trial for trial in cell.running if trial.trial.phase == "search"]
    return TrialGroup(
        left=cell.search_left,
        begun=sum(trial.seconds for trial in running),
        ended=cell.search_seconds,
        num_own=len(cell.search_seconds),
        expected=cell.most_epochs * cell.epoch_seconds,
        asha_share=cell.asha_epochs / cell.most_epochs,
        at_once=cell.in_flight,
    )


def _finals(cell: CellSnapshot) -> TrialGroup:
    running = [trial for trial in cell.running if trial.trial.phase == "final"]
    return TrialGroup(
        left=cell.finals_left,
        begun=sum(trial.seconds for trial in running),
        # A final is trained like a search trial that was not stopped.
        ended=cell.whole_seconds + cell.final_seconds,
        num_own=len(cell.final_seconds),
        expected=cell.most_epochs * cell.epoch_seconds,
        asha_share=1.0,
        at_once=max(1, cell.finals_left),
    )


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Relative variances of durations within groups and between the groups' means. `overall`: the mean of these, in seconds."""

    within: float
    between: float
    overall: float
    df: int

    @property
    def quantile(self) -> float:
        """The quantile of Student's t distribution with which a two-sided interval holds LEVEL."""
        from scipy.special import stdtrit

        return float(stdtrit(self.df, (1 + LEVEL) / 2))

    def mean_of(self, group: TrialGroup) -> float:
        """Return the mean duration of a trial of the group in seconds; of all groups, if nothing of this one was measured."""
        return group.mean or self.overall


def _spread(groups: Sequence[TrialGroup]) -> Spread | None:
    """Return the spread. Without a group that has two ended trials, all trials count as one group; None with fewer than two."""
    # A search trial counts once, not among the finals as well.
    own = [
        (group.mean, group.ended[len(group.ended) - group.num_own :])
        for group in groups
        if group.num_own and group.mean
    ]
    if sum(len(ended) for _, ended in own) < 2:
        return None
    means = [group.mean for group in groups if group.mean]
    overall = fmean(means)
    between = sum((mean / overall - 1) ** 2 for mean in means) / max(1, len(means) - 1)
    df = sum(len(ended) - 1 for _, ended in own)
    if not df:
        return Spread(within=between, between=between, overall=overall, df=max(1, len(means) - 1))
    within = sum((seconds / mean - 1) ** 2 for mean, ended in own for seconds in ended) / df
    return Spread(within=within, between=max(between, within), overall=overall, df=df)
