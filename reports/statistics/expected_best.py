"""Estimates the best score that a search of k configurations is expected to find, from the scores v of all N that were tried.

    E[best of k] = sum_j v_(j) C(j - 1, k - 1) / C(N, k)        v_(1) <= ... <= v_(N)

This is the mean of the best score over all subsets of k of the N configurations. Dodge et al. 2019 ("Show Your Work") introduced
the curve; they draw with replacement, which underestimates its end (Tang et al. 2020, "Showing Your Work Doesn't Always Work").
Where all points of a grid were tried, the value is exact. Configurations are treated as exchangeable, although TPE proposes later
ones from the results of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

import numpy as np
import pandas as pd

from search_spaces.language import Cell
from search_spaces.records import END_STATES

TOLERANCE = 1e-9  # percent points; a lead must exceed a gain by more than this, so that rounding errors do not decide


def curves(configurations: pd.DataFrame) -> Mapping[Cell, list[float]]:
    """Return E[best of k], k = 1 ... N, of every cell in which a configuration ended with a score (validation, percent points).

    `configurations` is the table of `reports.data.configurations.configurations`. A configuration that ASHA or a time budget
    stopped counts with its best score up to then; one without a score counts with the lowest score of its model and task. For a
    cell that was searched several times it is the mean over its searches, N being that of the shortest.
    """
    search = configurations[configurations["state"].isin(END_STATES)]
    lowest = search.groupby(["model", "task"])["best_score"].min()
    found = {}
    for name, tries in search.groupby("cell", sort=False):
        model, task, method = str(name).rsplit("/", 2)  # from the end: a model may be a path with slashes
        if tries["best_score"].notna().any():
            scores = tries["best_score"].fillna(lowest[model, task])
            each = [expected_best([float(score) for score in own]) for _, own in scores.groupby(tries["search"])]
            mean = [fmean(values) for values in zip(*each, strict=False)]
            found[Cell(model=model, task=task, method=method)] = mean
    return found


def expected_best(scores: Sequence[float]) -> list[float]:
    """Return E[best of k] for k = 1 ... N, where N is the number of scores; the last value is the highest score."""
    ranked = np.sort(np.asarray(scores, dtype=float))
    ranks = np.arange(1, len(ranked) + 1)
    probabilities = np.full(len(ranked), 1 / max(len(ranked), 1))
    found = []
    for k in range(1, len(ranked) + 1):
        found.append(float(probabilities @ ranked))
        # From k to k + 1: C(j - 1, k) / C(j - 1, k - 1) = (j - k) / k, C(N, k) / C(N, k + 1) = (k + 1) / (N - k).
        probabilities = probabilities * ((ranks - k) / k * (k + 1) / max(len(ranked) - k, 1)).clip(0)
    return found


@dataclass(frozen=True, kw_only=True)
class LeadStability:
    """How far one method leads on one model and task by validation score, and how much the others still gained from search.

    lead: best score of the first method minus that of the second, percent points.
    largest_gain: largest increase of another method's expected best score from half to all of its configurations, percent points.
    order_after_half: the methods by expected best score after half of their configurations, best first.
    order_after_all: the methods by best score after all of their configurations, best first.
    """

    lead: float
    largest_gain: float
    order_after_half: tuple[str, ...]
    order_after_all: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether the same method leads after half and after all configurations, by more than the largest gain of another one."""
        same_leader = self.order_after_half[0] == self.order_after_all[0]
        return self.largest_gain < self.lead - TOLERANCE and same_leader


def lead_stability(curves: Mapping[str, Sequence[float]]) -> LeadStability | None:
    """Compute how stable the lead is, from the curves E[best of k] of the methods of one model and task, by label.

    None with fewer than two methods, or if any method has fewer than two configurations.
    """
    if len(curves) < 2 or min(map(len, curves.values())) < 2:
        return None
    half = {name: curve[ceil(len(curve) / 2) - 1] for name, curve in curves.items()}
    full = {name: curve[-1] for name, curve in curves.items()}
    order = sorted(full, key=lambda name: -full[name])
    return LeadStability(
        lead=full[order[0]] - full[order[1]],
        largest_gain=max(full[name] - half[name] for name in order[1:]),
        order_after_half=tuple(sorted(half, key=lambda name: -half[name])),
        order_after_all=tuple(order),
    )
