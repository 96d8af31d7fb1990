"""The search of one cell: an Optuna study driven by ask and tell. Only this file and
`study_storage` import optuna.

The first configurations cover every dimension evenly (four configurations contain each of four learning rates once). Their seed
is shared by all methods on one model and task, so that all of these start with the same learning rates and none has an advantage
by chance. After them, if the grid has no more configurations than the budget allows, the rest of it is tried in random order;
otherwise Optuna's TPE proposes (multivariate, constant liar). Proposals depend only on the seeds and on the results told before.
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

# Minimum and maximum number of configurations in the evenly spread start.
STARTUP = 4, 10
# If TPE proposes configurations of a finite grid that were tried already this many times, the next untried one is taken.
REDRAWS = 10
STATES = {
    "DONE": TrialState.COMPLETE,
    "STOPPED": TrialState.PRUNED,
    "FAILED": TrialState.FAIL,
    "INVALID": TrialState.FAIL,
}


class Study:
    """Proposes the configurations of one cell. `ask` and `tell` must be called in the order of the configurations' numbers.

    `seed` is the seed of the space. The study derives its own from it: one per cell, and for the first configurations and the
    order of the grid one per model and task. `limit` is the number of configurations that can be asked for.
    """

    def __init__(self, dimensions: Mapping[str, Dimension], num_configurations: int, seed: int, cell: Cell):
        shared = derive(seed, "search", cell.model, cell.task)
        seed = derive(seed, str(cell))
        self._seed, self._startup = seed, min(STARTUP[1], max(STARTUP[0], num_configurations // 2))
        self._start = even_points(dimensions, self._startup, derive(shared, "start"))
        # Optuna's distributions of the searched hyperparameters, by name.
        self.distributions: dict[str, BaseDistribution] = {name: _distribution(d) for name, d in dimensions.items()}
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
        """The names of the searched hyperparameters."""
        return list(self.distributions)

    @property
    def num_asked(self) -> int:
        return len(self._trials)

    def parameters_of(self, number: int) -> dict[str, Scalar]:
        """Return the searched hyperparameters of configuration `number`, by name."""
        return dict(self._trials[number].params)

    def ask(self) -> dict[str, Scalar]:
        """Return the next configuration, by hyperparameter name. It was never returned before."""
        assert self.num_asked < self.limit
        if self.num_asked < self._startup and self._key(self._start[self.num_asked]) not in self._seen:
            return self.replay(self._start[self.num_asked])
        if self._enumerate:
            return self.replay(self._untried())
        for draw in range(REDRAWS):
            self._study.sampler = self._sampler(draw)
            trial = self._study.ask(self.distributions)
            if self._key(trial.params) not in self._seen:
                return self._take(trial)
            # TPE ignores failed trials, so a repeat leaves no trace in the model.
            self._study.tell(trial, state=TrialState.FAIL)
        return self.replay(self._untried())

    def replay(self, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Add a given configuration to Optuna's study instead of a proposal, and return it.

        It is one of the evenly spread first ones, the next of the grid, or one from the ledger when a sweep is continued.
        """
        self._study.enqueue_trial(dict(parameters))
        return self._take(self._study.ask(self.distributions))

    def tell(self, number: int, outcome: Outcome, curve: Sequence[Progress]) -> None:
        """Tell Optuna how configuration `number` ended: completed, pruned or failed.

        Except for a failure, the best score after each epoch that counts is reported as an intermediate value.
        """
        trial, state = self._trials[number], STATES[outcome.state]
        if state is not TrialState.FAIL:
            for point in curve:
                if point.has_best:
                    trial.report(point.best_score, point.epoch)
        self._study.tell(trial, outcome.best_score if state is TrialState.COMPLETE else None, state=state)

    def _take(self, trial: optuna.trial.Trial) -> dict[str, Scalar]:
        self._trials.append(trial)
        self._seen.add(self._key(trial.params))
        return dict(trial.params)

    def _key(self, parameters: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
        return tuple(parameters[name] for name in self.distributions)

    def _untried(self) -> dict[str, Scalar]:
        return next(point for point in self._points if self._key(point) not in self._seen)

    def _sampler(self, draw: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return Sampler(
                self.distributions,
                seed=derive(self._seed, "tpe", self.num_asked, draw) % 2**32,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=self._startup,
            )


class Sampler(optuna.samplers.TPESampler):
    """Optuna's TPE with a fixed search space. The original infers it from all earlier trials at each proposal, which is slow."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], **options: Any):
        super().__init__(**options)
        self._space = {name: d for name, d in sorted(distributions.items()) if not d.single()}

    def infer_relative_search_space(
        self, study: optuna.study.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space)


def even_points(dimensions: Mapping[str, Dimension], number: int, seed: int) -> list[dict[str, Scalar]]:
    """Return `number` configurations that cover each dimension evenly, as a Latin hypercube.

    A range is divided into `number` parts of equal width (on its log scale, if it has one) with one random value in each; listed
    values are each used equally often, up to one. The values drawn for a dimension do not depend on the other dimensions.
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
