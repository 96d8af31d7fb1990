"""Decides by ASHA whether one trial is stopped at a rung, and divides the configurations of a search among Hyperband's brackets.

The caller chooses the scores that the trial is compared with. The decision depends on nothing else, so that replaying a ledger
gives the same decisions. Sources: Li et al. 2020 (ASHA), in the variant that stops a trial at a rung and never resumes it; Li et
al. 2018 (Hyperband).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.language import Budget


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
        import numpy as np  # not above, because a plan needs the rungs and must load quickly

        return score < float(np.quantile(others, 1 - 1 / self.reduction))


class Brackets:
    """The brackets of a search with this budget, of `configurations` with at most `epochs` each.

    A bracket whose first rung is late finds configurations that start slowly, at a higher cost. As in Hyperband, all brackets are
    given about the same number of epochs: each configuration goes to the one whose configurations so far are expected to train
    the fewest. Search trials are numbered from 0, `budget.search_seeds` of them for each configuration.
    """

    def __init__(self, budget: Budget, epochs: int, configurations: int):
        self.all = [
            Bracket(grace=first, reduction=budget.reduction, min_values=budget.min_values, epochs=epochs)
            for first in budget.first_rungs(epochs)
        ]
        given = [0.0] * len(self.all)
        # The number of its bracket, for each search trial.
        self.of_trial: list[int] = []
        for _ in range(configurations):
            number = given.index(min(given))
            given[number] += self.all[number].mean_epochs
            self.of_trial += [number] * budget.search_seeds

    def can_stop(self, in_flight: int) -> list[bool]:
        """Return for each search trial whether a rung may stop it.

        It is compared with trials of its bracket that come at least `in_flight` earlier, if these are `min_values`.
        """
        judges, found = [0] * len(self.all), []
        for trial, number in enumerate(self.of_trial):
            if trial >= in_flight:
                judges[self.of_trial[trial - in_flight]] += 1
            found.append(bool(self.all[number].rungs) and judges[number] >= self.all[number].min_values)
        return found

    def mean_epochs(self, in_flight: int) -> float:
        """Return the mean number of epochs of a search trial if ASHA stops as many as it is meant to.

        In a bracket that can stop none of its trials, all train to their end.
        """
        stopping = {number for number, can in zip(self.of_trial, self.can_stop(in_flight), strict=True) if can}
        each = [b.mean_epochs if number in stopping else b.epochs for number, b in enumerate(self.all)]
        return sum(each[number] for number in self.of_trial) / len(self.of_trial)
