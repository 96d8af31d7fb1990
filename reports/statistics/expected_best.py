"""Estimates the best score that a search of k configurations is expected to find, from the scores of all N that were tried.

    E[best of k] = sum_j v_(j) C(j - 1, k - 1) / C(N, k)        v_(1) <= ... <= v_(N)

The mean over all subsets of k of the N configurations. After Dodge et al. 2019 ("Show Your Work"), who draw with replacement,
which understates the end of the curve (Tang et al. 2020, "Showing Your Work Doesn't Always Work"); exact where a grid was
enumerated.
Configurations are treated as interchangeable, although TPE proposes later ones from earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd

from search_spaces.language import Cell
from search_spaces.records import END_STATES

TOLERANCE = 1e-9  # percent points; a lead must exceed a gain by more than rounding


def curves(configurations: pd.DataFrame) -> Mapping[Cell, list[float]]:
    """E[best of k] of every cell in which a configuration has ended with a score, percent points of the validation split.

    `configurations`: as in `reports.data.configurations`. One that ASHA or a time budget stopped counts with its best epoch, one
    without a score with the lowest score of its model and task.
    """
    search = configurations[configurations["state"].isin(END_STATES)]
    lowest = search.groupby(["model", "task"])["best_score"].min()
    found = {}
    for name, tries in search.groupby("cell", sort=False):
        model, task, method = str(name).rsplit("/", 2)  # a model may be a path
        if tries["best_score"].notna().any():
            scores = tries["best_score"].fillna(lowest[model, task])
            found[Cell(model=model, task=task, method=method)] = expected_best([float(score) for score in scores])
    return found


def expected_best(scores: Sequence[float]) -> list[float]:
    """E[best of k] for k = 1 ... N, in the unit of the scores; the last one is the best of all."""
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
    """The leading method of a column by validation score, and whether more search could replace it.

    lead: the first method's distance to the second, percent points.
    largest_gain: the most that any other method gained from the second half of its configurations, percent points.
    order_after_half: the methods by expected best score after half of their configurations, best first.
    order_after_all: the same after all of them.
    """

    lead: float
    largest_gain: float
    order_after_half: tuple[str, ...]
    order_after_all: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether no other method would overtake the leader by gaining once more what it gained from the second half."""
        same_leader = self.order_after_half[0] == self.order_after_all[0]
        return self.largest_gain < self.lead - TOLERANCE and same_leader


def lead_stability(curves: Mapping[str, Sequence[float]]) -> LeadStability | None:
    """Of a column's curves E[best of k] by method; None with fewer than two methods or two configurations of each."""
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
