"""What a search of fewer tries would have found: expected best score after k tries, from the scores of all tries.

    E[best of k] = sum_j v_(j) C(j - 1, k - 1) / C(N, k)        v_(1) <= ... <= v_(N)

The mean over all subsets of k of the N tries. After Dodge et al. 2019 ("Show Your Work"), who draw with replacement, which
understates the end of the curve (Tang et al. 2020, "Showing Your Work Doesn't Always Work"); exact where a grid was enumerated.
Tries are taken as interchangeable, although TPE learns from earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np

from reports.data.store import StoredSweep
from reports.data.tried import tried
from search_spaces.language import Cell
from search_spaces.records import END_STATES

ROUNDING = 1e-9  # a lead that is equal to a gain is none


@lru_cache(maxsize=2)
def curves(sweep: StoredSweep) -> Mapping[Cell, list[float]]:
    """E[best of k] of every cell in which a try has ended with a score, percent points of the validation split.

    A try is a configuration, with the mean over its seeds. One that ASHA or a time budget stopped counts with its best epoch, one
    without a score with the lowest of its model and task.
    """
    search = tried(sweep)
    search = search[search["state"].isin(END_STATES)]
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
    chances = np.full(len(ranked), 1 / max(len(ranked), 1))
    found = []
    for k in range(1, len(ranked) + 1):
        found.append(float(chances @ ranked))
        # From k to k + 1: C(j - 1, k) / C(j - 1, k - 1) = (j - k) / k, C(N, k) / C(N, k + 1) = (k + 1) / (N - k).
        chances = chances * ((ranks - k) / k * (k + 1) / max(len(ranked) - k, 1)).clip(0)
    return found


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Whether more search could change who leads a column, by validation score.

    `lead`: the leader's distance to the second. `gain`: the most that any other method gained from the second half of its tries.
    `half`, `full`: order of the methods after half and all tries, best first.
    """

    lead: float
    gain: float
    half: tuple[str, ...]
    full: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """As many tries again, at the pace of the last half, would not let another method catch up."""
        return self.gain < self.lead - ROUNDING and self.half[0] == self.full[0]


def outlook(curves: Mapping[str, Sequence[float]]) -> Outlook | None:
    """Of the curves E[best of k] of a column's methods; None with fewer than two methods or two tries of each."""
    if len(curves) < 2 or min(map(len, curves.values())) < 2:
        return None
    half = {name: curve[ceil(len(curve) / 2) - 1] for name, curve in curves.items()}
    full = {name: curve[-1] for name, curve in curves.items()}
    order = sorted(full, key=lambda name: -full[name])
    return Outlook(
        lead=full[order[0]] - full[order[1]],
        gain=max(full[name] - half[name] for name in order[1:]),
        half=tuple(sorted(half, key=lambda name: -half[name])),
        full=tuple(order),
    )
