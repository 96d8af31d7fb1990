"""What k collapsed finals of n say about the probability that a seed collapses (Clopper and Pearson 1934)."""

from __future__ import annotations

from scipy import special


def largest_plausible_rate(collapsed: int, finals: int, level: float = 0.95) -> float:
    """Return the exact upper bound of the probability of a collapse: with a larger one, `collapsed` or fewer of the finals would
    collapse with a probability below 1 - `level`. 1 if all collapsed, or without finals.
    """
    if collapsed >= finals:
        return 1.0
    return float(special.betaincinv(collapsed + 1, finals - collapsed, level))
