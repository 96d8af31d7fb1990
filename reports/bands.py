"""What figures draw around a score, and when one cell stands clearly above another. Figures ask nowhere else.

Replaceable by a better rule: cells in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy import stats

from reports.cells import CellResult

LEVEL = 0.95
SHORT = "95 % t interval"
NAME = f"{SHORT} over final seeds"


def interval_of(result: CellResult) -> tuple[float, float] | None:
    """Interval of the cell's mean test score, percent points; None with fewer than two finals."""
    if result.mean is None or result.std is None:
        return None
    n = len(result.scores)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * result.std / math.sqrt(n)
    return result.mean - half, result.mean + half


def clearly_above(first: CellResult, second: CellResult) -> bool:
    """Whether the first cell's interval lies wholly above the second's; False when one of them has none."""
    upper, lower = interval_of(first), interval_of(second)
    return upper is not None and lower is not None and upper[0] > lower[1]


def front(sizes: Sequence[float], means: Sequence[float], above: Callable[[int, int], bool]) -> list[int]:
    """Positions of the methods that the Pareto front runs through, from the smallest to the largest.

    `above(i, j)`: method i is better than j beyond noise. The front starts at the smallest method and rises only to one
    that is above the last it reached: where that cannot be told, nothing says that more parameters buy a better score.
    """
    found: list[int] = []
    for position in sorted(range(len(sizes)), key=lambda i: (sizes[i], -means[i], i)):
        if not found or above(position, found[-1]):
            found.append(position)
    return found
