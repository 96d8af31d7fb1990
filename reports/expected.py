"""What a search of fewer tries would have found: expected best score after k tries, from the scores of all tries.

    E[best of k] = sum_j v_(j) C(j - 1, k - 1) / C(N, k)        v_(1) <= ... <= v_(N)

The mean over all subsets of k of the N tries. After Dodge et al. 2019 ("Show Your Work"), who draw with replacement, which
understates the end of the curve (Tang et al. 2020, "Showing Your Work Doesn't Always Work"); exact where a grid was enumerated.
Tries are taken as interchangeable, although TPE learns from earlier ones. Pure numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, comb

ROUNDING = 1e-9  # a lead that is equal to a gain is none


def expected_best(scores: Sequence[float]) -> list[float]:
    """E[best of k] for k = 1 ... N, in the unit of the scores; the last one is the best of all."""
    ordered = sorted(scores)
    number = len(ordered)
    return [
        sum(value * comb(rank - 1, k - 1) for rank, value in enumerate(ordered, start=1)) / comb(number, k)
        for k in range(1, number + 1)
    ]


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
