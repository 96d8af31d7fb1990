"""ASHA's decision for one trial of one cell: numbers in, stop or continue out.

No clock, no framework, no state: which scores a trial is judged against is decided by the caller, so that replaying a
record gives the same decisions. Source: Li et al. 2020 (ASHA), the variant that stops at a rung and never resumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Rungs at `grace`, `grace * reduction`, ... epochs, below `epochs`.

    A trial goes on when its score is at least that of the best 1 / `reduction` of the scores the rung holds; a rung with
    fewer than `min_values` stops none.
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

    def stops(self, epoch: int, score: float, others: Sequence[float]) -> bool:
        """Whether a trial with this best score so far ends here; `others`: best scores of other trials at this epoch."""
        if epoch not in self.rungs or len(others) < self.min_values:
            return False
        return score < float(np.quantile(others, 1 - 1 / self.reduction))
