"""Reduces the scores of cells that were searched several times to one value per search: the mean of its finals.

With `Budget(searches=k)` a cell is searched k times, each time with another validation split and other seeds, and every search
has a winner and finals of its own. The finals of one search share its configuration, so they say nothing about the luck of the
search; only the k searches are independent repetitions of the method. So the intervals of `reports/statistics/intervals.py` are
computed from the k search means as they otherwise are from the scores of the final seeds, with k - 1 degrees of freedom (and
those that moderated variances add, `reports/statistics/seed_variance.py`). The variance between the means of S finals contains
that within searches already, s^2 / S, and the covariance over test examples is that of the means. Shapes: K finals of all
methods, N search means of all methods.

This is the cluster (or nested random effects) analysis of a balanced design, for which it is exact: Snedecor and Cochran 1989,
chapter 13. `docs/statistics.md` has its simulation, `benchmarks/search_luck.py` the code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports.data.cells import CellResult


def repetitions(
    results: Sequence[CellResult], covariance: np.ndarray | None
) -> tuple[list[Sequence[float]], np.ndarray | None]:
    """Return the values over which intervals are computed, by cell, and their covariance over test examples.

    They are the scores of the finals, or the means of searches if a cell was searched several times. `covariance`: as for
    `search_means`.
    """
    scores: list[Sequence[float]] = [result.scores for result in results]
    if not any(result.by_search for result in results):
        return scores, covariance
    means, covariance = search_means(scores, [result.searches for result in results], covariance)
    return list(means), covariance


def search_means(
    scores: Sequence[Sequence[float]], searches: Sequence[Sequence[int]], covariance: np.ndarray | None
) -> tuple[list[list[float]], np.ndarray | None]:
    """Return the mean score of each search, by method, and their covariance [N, N] over test examples.

    scores: for each method the scores of its finals, percent points. searches: the number of the search of each of them.
    covariance: [K, K], of all scores in that order over the choice of test examples, squared percent points; None if unknown.
    """
    means, weights, first = [], [], 0
    total = sum(map(len, scores))
    for own, numbers in zip(scores, searches, strict=True):
        found = []
        for number in dict.fromkeys(numbers):
            row = np.zeros(total)
            row[[first + i for i, each in enumerate(numbers) if each == number]] = 1 / list(numbers).count(number)
            weights.append(row)
            found.append(float(row[first : first + len(own)] @ np.asarray(own, dtype=float)))
        means.append(found)
        first += len(own)
    average = np.array(weights)
    return means, None if covariance is None else average @ covariance @ average.T
