"""Which differences are within noise: Welch's t interval over final seeds.

Replaceable by a better rule: numbers in, verdict out. It knows seed variation only; that another draw of test examples
would give other scores is not in it, and nothing is corrected for the number of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from scipy import stats

LEVEL = 0.95


def difference_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Welch's 95 % interval of mean(first) - mean(second), in the unit of the scores.

    None with fewer than two values on a side. Without any spread on either side it is the difference itself.
    """
    if min(len(first), len(second)) < 2:
        return None
    difference = fmean(first) - fmean(second)
    squares = [variance(values) / len(values) for values in (first, second)]
    if sum(squares) == 0:
        return difference, difference
    # Welch and Satterthwaite's degrees of freedom.
    degrees = sum(squares) ** 2 / sum(s**2 / (len(v) - 1) for s, v in zip(squares, (first, second), strict=True))
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(sum(squares))
    return difference - half, difference + half


def within_noise(first: Sequence[float], second: Sequence[float]) -> bool | None:
    """Whether the interval of the difference contains zero; None when it cannot be told."""
    interval = difference_interval(first, second)
    return None if interval is None else interval[0] <= 0 <= interval[1]
