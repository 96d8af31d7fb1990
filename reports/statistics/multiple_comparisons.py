"""p-values corrected for several comparisons, so that the probability of one or more false positives among them stays at 5 %.

`holm` (Holm 1979) is for any comparisons. `all_pairs` (Shaffer 1986, procedure S1) is for all pairs of some methods and never
less powerful: if methods 1 and 2 differ, method 3 differs from at least one of them, so that of the 6 pairs of 4 methods never
4 or 5 are alike. Neither assumes that the comparisons are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's method, in the order given."""
    return _step_down(p_values, range(len(p_values), 0, -1))


def all_pairs(p_values: Sequence[float], methods: int) -> list[float]:
    """Return the p-values of all pairs of this many methods, adjusted by Shaffer's method, in the order given.

    Raises ValueError if their number is not that of all pairs.
    """
    pairs = comb(methods, 2)
    if len(p_values) != pairs:
        raise ValueError(f"{len(p_values)} p-values for {methods} methods, which have {pairs} pairs")
    possible = _numbers_of_equal_pairs(methods)
    return _step_down(p_values, [max(n for n in possible if n <= left) for left in range(pairs, 0, -1)])


@cache
def _numbers_of_equal_pairs(methods: int) -> frozenset[int]:
    """Return how many pairs of methods may have equal true scores: methods fall into groups, and pairs within one are equal."""
    if methods < 2:
        return frozenset({0})
    return frozenset(
        comb(group, 2) + rest for group in range(1, methods + 1) for rest in _numbers_of_equal_pairs(methods - group)
    )


def _step_down(p_values: Sequence[float], factors: Sequence[int]) -> list[float]:
    """Multiply the p-values, in ascending order, by the factors; none may become smaller than the one before, or exceed 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.asarray(p_values, dtype=float)[order] * np.asarray(factors, dtype=float)
    result = np.empty(len(order))
    result[order] = np.minimum(np.maximum.accumulate(adjusted), 1.0)
    return result.tolist()
