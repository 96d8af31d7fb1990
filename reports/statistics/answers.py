"""Says what the standings of a column allow to conclude: which method to use, that all are alike, or that nothing was learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reports.statistics.standings import Standing

# no result: no method has a score. nothing learnt: no method is significantly above a constant prediction. one method: there is
# nothing to compare it with. not judged: no difference to the best could be tested, as with a single seed. alike: no method is
# significantly worse than the best one. different: at least one is.
Outcome = Literal["no result", "nothing learnt", "one method", "not judged", "alike", "different"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What can be concluded about the methods of one column; methods are given by their labels.

    best: the method with the highest mean; "" without a score. Of several that are equal as printed, the first.
    tied: methods that cannot be told apart from it. worse: those that are significantly worse.
    constant: methods whose mean is not significantly above the score of a constant prediction, the best one included.
    """

    outcome: Outcome
    best: str = ""
    tied: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()


def answer(column: Mapping[str, Standing], baseline: float | None) -> Answer:
    """Return what the standings of a column, by label, allow to conclude.

    baseline: score of a constant prediction, percent points; None if it is not known. Whether a mean is above it is tested at 5
    %, corrected for the number of methods (Bonferroni), with the baseline as a fixed number. Of a single seed only a mean that is
    not above it counts as constant.
    """
    if not column:
        return Answer(outcome="no result")
    best, *equal = [label for label, standing in column.items() if standing.best]
    tied = (*equal, *(label for label, standing in column.items() if standing.tied))
    worse = tuple(label for label, standing in column.items() if standing.p_value is not None and not standing.tied)
    constant = tuple(
        label
        for label, standing in column.items()
        if baseline is not None and not _above(standing, baseline, len(column))
    )
    outcome: Outcome = "different" if worse else "alike" if tied else "not judged"
    if len(constant) == len(column):
        outcome = "nothing learnt"
    elif len(column) == 1:
        outcome = "one method"
    return Answer(outcome=outcome, best=best, tied=tied, worse=worse, constant=constant)


def _above(standing: Standing, baseline: float, methods: int) -> bool:
    lead = standing.value - baseline
    return lead > (standing.mean.significance_threshold(methods) if standing.mean else 0.0)
