"""Decides by ASHA whether one trial is stopped at a rung.

The caller chooses the scores that the trial is compared with. The decision depends on nothing else, so that replaying a ledger
gives the same decisions. Source: Li et al. 2020 (ASHA), in the variant that stops a trial at a rung and never resumes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Rungs after `grace`, `grace * reduction`, `grace * reduction**2`, ... epochs, all below `epochs`.

    A trial continues if its score is at least the (1 - 1 / `reduction`) quantile of the other trials' scores at that rung. No
    trial is stopped at a rung that fewer than `min_values` other trials have reached.
    """

    grace: int
    reduction: int
    min_values: int
    epochs: int

    @property
    def rungs(self) -> list[int]:
        """Epochs at which a decision is taken, ascending."""
        number = max(0, math.ceil(math.log(max(1.0, self.epochs / self.grace), self.reduction) - 1e-9))
        return [self.grace * self.reduction**i for i in range(number)]

    @property
    def mean_epochs(self) -> float:
        """Mean number of epochs of a trial if 1 / `reduction` of the trials continue at each rung."""
        ends = [*self.rungs, self.epochs]
        shares = [self.reduction**-i for i in range(len(ends))]
        return sum(share * (end - start) for share, start, end in zip(shares, [0, *ends], ends, strict=False))

    def stops(self, epoch: int, score: float, others: Sequence[float]) -> bool:
        """Return whether to stop a trial whose best score so far is `score`.

        `others` are the best scores of other trials after the same number of epochs. Without a rung at `epoch`, returns False.
        """
        if epoch not in self.rungs or len(others) < self.min_values:
            return False
        return score < float(np.quantile(others, 1 - 1 / self.reduction))
