"""The search of one cell: an Optuna study driven by ask and tell. The only file that imports optuna.

It starts with points that cover every dimension evenly (with four of them, each of four learning rates once), drawn with a seed
that all methods on one model and task share: whatever the budget, they begin with the same learning rates, and none is ahead
because it drew a better one. A finite space no larger than its budget is then enumerated without repeats; a wider one goes on
with TPE (multivariate, constant liar). The proposal for trial i depends on the seeds and on what was told before, nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from search_spaces.language import Cell, Dimension, Range, Scalar, grid, grid_size
from search_spaces.records import Outcome, Progress
from trainables.seeds import derive

optuna.logging.set_verbosity(optuna.logging.ERROR)

# Fewest and most points of the even start.
STARTUP = 4, 10
# Draws before a finite space is asked for an untried point directly.
REDRAWS = 10
STATES = {
    "DONE": TrialState.COMPLETE,
    "STOPPED": TrialState.PRUNED,
    "FAILED": TrialState.FAIL,
    "INVALID": TrialState.FAIL,
}


class Study:
    """Proposes configurations of one cell. `ask` and `tell` are called in the order of trial numbers.

    `seed` is the space's; proposals differ between cells, except for the start, which is that of all methods beside `cell`.
    """

    def __init__(self, dimensions: Mapping[str, Dimension], num_configurations: int, seed: int, cell: Cell):
        shared = derive(seed, "search", cell.model, cell.task)
        seed = derive(seed, str(cell))
        self._seed, self._startup = seed, min(STARTUP[1], max(STARTUP[0], num_configurations // 2))
        self._start = even_points(dimensions, self._startup, derive(shared, "start"))
        self._distributions = {name: _distribution(d) for name, d in dimensions.items()}
        self._study = optuna.create_study(direction="maximize")
        self._trials: list[optuna.trial.Trial] = []
        self._seen: set[tuple[Scalar, ...]] = set()
        self._points: list[dict[str, Scalar]] = []
        if grid_size(dimensions) < np.inf:
            points = grid(dimensions)
            order = np.random.default_rng(derive(shared, "grid")).permutation(len(points))
            self._points = [points[i] for i in order]
        self._enumerate = bool(self._points) and len(self._points) <= num_configurations
        self.limit = min(num_configurations, len(self._points)) if self._points else num_configurations

    @property
    def names(self) -> list[str]:
        """What is searched."""
        return list(self._distributions)

    @property
    def num_asked(self) -> int:
        return len(self._trials)

    def ask(self) -> dict[str, Scalar]:
        """The next configuration, never one that was asked before."""
        assert self.num_asked < self.limit
        if self.num_asked < self._startup and self._key(self._start[self.num_asked]) not in self._seen:
            return self.replay(self._start[self.num_asked])
        if self._enumerate:
            return self.replay(self._untried())
        for draw in range(REDRAWS):
            self._study.sampler = self._sampler(draw)
            trial = self._study.ask(self._distributions)
            if self._key(trial.params) not in self._seen:
                return self._take(trial)
            # TPE ignores failed trials, so a repeat leaves no trace in the model.
            self._study.tell(trial, state=TrialState.FAIL)
        return self.replay(self._untried())

    def replay(self, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Enter a configuration that is known already: the next grid point, or one asked before an interruption."""
        self._study.enqueue_trial(dict(parameters))
        return self._take(self._study.ask(self._distributions))

    def tell(self, number: int, outcome: Outcome, curve: Sequence[Progress]) -> None:
        """Report how a trial ended: complete with its best score, pruned with its curve of best scores, or failed."""
        trial, state = self._trials[number], STATES[outcome.state]
        if state is not TrialState.FAIL:
            for point in curve:
                trial.report(point.best_score, point.epoch)
        self._study.tell(trial, outcome.best_score if state is TrialState.COMPLETE else None, state=state)

    def _take(self, trial: optuna.trial.Trial) -> dict[str, Scalar]:
        self._trials.append(trial)
        self._seen.add(self._key(trial.params))
        return dict(trial.params)

    def _key(self, parameters: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
        return tuple(parameters[name] for name in self._distributions)

    def _untried(self) -> dict[str, Scalar]:
        return next(point for point in self._points if self._key(point) not in self._seen)

    def _sampler(self, draw: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return Sampler(
                self._distributions,
                seed=derive(self._seed, "tpe", self.num_asked, draw) % 2**32,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=self._startup,
            )


class Sampler(optuna.samplers.TPESampler):
    """TPE that is told the search space, instead of finding it again in all earlier trials at every ask."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], **options: Any):
        super().__init__(**options)
        self._space = {name: d for name, d in sorted(distributions.items()) if not d.single()}

    def infer_relative_search_space(
        self, study: optuna.study.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space)


def even_points(dimensions: Mapping[str, Dimension], number: int, seed: int) -> list[dict[str, Scalar]]:
    """`number` configurations that cover each dimension evenly: a Latin hypercube over listed values and range quantiles.

    The values of a dimension do not depend on which others there are.
    """
    columns: dict[str, list[Scalar]] = {}
    for name, dimension in dimensions.items():
        draw = np.random.default_rng(derive(seed, name))
        if isinstance(dimension, Range):
            shares = (draw.permutation(number) + draw.random(number)) / number
            columns[name] = [_quantile(dimension, share) for share in shares]
        else:
            rounds = -(-number // len(dimension.values))
            order = np.concatenate([draw.permutation(len(dimension.values)) for _ in range(rounds)])
            columns[name] = [dimension.values[i] for i in order[:number]]
    return [{name: column[i] for name, column in columns.items()} for i in range(number)]


def _quantile(dimension: Range, share: float) -> float:
    if dimension.log:
        return float(dimension.low * (dimension.high / dimension.low) ** share)
    return float(dimension.low + (dimension.high - dimension.low) * share)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Range):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return CategoricalDistribution(dimension.values)
