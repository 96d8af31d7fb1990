"""The searches of a cell by Optuna's TPE, driven by ask and tell. Only this file and `study_storage` import optuna.

The first configurations cover every dimension evenly (four configurations contain each of four learning rates once). After them,
if the grid has no more configurations than the budget allows, the rest of it is tried in random order; otherwise Optuna's TPE
proposes (multivariate, constant liar), for one objective or for two.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from orchestrator.search.study import GridStudy, RandomStudy, Study, even_points, shuffled_grid
from search_spaces.language import Budget, Cell, Dimension, Range, Scalar
from search_spaces.records import Outcome
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


def open_study(dimensions: Mapping[str, Dimension], budget: Budget, seed: int, cell: Cell) -> Study:
    """Return the search of a cell that the budget names. `seed`: see `Study`."""
    kinds: dict[str, type[Study]] = {"tpe": TpeStudy, "random": RandomStudy, "grid": GridStudy, "multi": MultiStudy}
    return kinds[budget.search](dimensions, budget.trials, seed, cell)


class TpeStudy(Study):
    """Optuna's TPE after an evenly spread start. It is told the results."""

    def __init__(self, dimensions: Mapping[str, Dimension], num_configurations: int, seed: int, cell: Cell):
        super().__init__(dimensions, num_configurations, seed, cell)
        self._seed, self._startup = derive(seed, str(cell)), min(STARTUP[1], max(STARTUP[0], num_configurations // 2))
        self._start = even_points(dimensions, self._startup, derive(self._shared_seed, "start"))
        self._distributions = distributions(dimensions)
        self._study = optuna.create_study(directions=self.directions)
        # Those of which Optuna was not told the end, by number: each holds a copy of what its study has.
        self._trials: dict[int, optuna.trial.Trial] = {}
        self._points = shuffled_grid(dimensions, self._shared_seed)
        self._enumerate = bool(self._points) and len(self._points) <= num_configurations

    def ask(self) -> dict[str, Scalar]:
        assert self.num_asked < self.limit
        for draw in range(0 if self._is_known else REDRAWS):
            self._study.sampler = self._sampler(draw)
            trial = self._study.ask(self._distributions)
            if self.is_new(trial.params):
                return self._take(trial)
            # TPE ignores failed trials, so a repeat leaves no trace in the model.
            self._study.tell(trial, state=TrialState.FAIL)
        return self.replay(self.propose())

    def propose(self) -> Mapping[str, Scalar]:
        """Return the next configuration of the start, then the next of the grid."""
        if self._is_at_start:
            return self._start[self.num_asked]
        return self.first_new(self._points)

    def replay(self, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        self._study.enqueue_trial(dict(parameters))
        return self._take(self._study.ask(self._distributions))

    def tell(self, number: int, outcome: Outcome, curve: Mapping[int, float]) -> None:
        """Tell Optuna how configuration `number` ended: completed, pruned or failed.

        A pruned one has its last score as its value and as the only intermediate one: TPE uses no other, and Optuna copies all of
        a trial's values for each that is added. With two objectives Optuna takes no intermediate values, and counts pruned
        configurations as worse than completed ones.
        """
        trial, state = self._trials.pop(number), STATES[outcome.state]
        if state is TrialState.PRUNED and curve and len(self.directions) == 1:
            last = max(curve)
            trial.report(curve[last], last)
        self._study.tell(trial, self.objectives(outcome) if state is TrialState.COMPLETE else None, state=state)

    @property
    def _is_at_start(self) -> bool:
        return self.num_asked < self._startup and self.is_new(self._start[self.num_asked])

    @property
    def _is_known(self) -> bool:
        """Whether TPE is not needed for the next configuration."""
        return self._is_at_start or self._enumerate

    def _take(self, trial: optuna.trial.Trial) -> dict[str, Scalar]:
        self._trials[self.num_asked] = trial
        return super().replay(trial.params)

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


class MultiStudy(TpeStudy):
    """The same for two objectives: a high validation score and few trained parameters (Ozaki et al. 2022, in Optuna's version).

    Optuna splits the configurations by fronts, and divides a front by the area that its points dominate.
    """

    directions = ("maximize", "minimize")

    def objectives(self, outcome: Outcome) -> list[float]:
        assert outcome.counts, "the parameters of a trial are counted at its end"
        return [outcome.best_score, outcome.counts.trained]


class Sampler(optuna.samplers.TPESampler):
    """Optuna's TPE with a fixed search space. The original infers it from all earlier trials at each proposal, which is slow."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], **options: Any):
        super().__init__(**options)
        self._space = {name: d for name, d in sorted(distributions.items()) if not d.single()}

    def infer_relative_search_space(
        self, study: optuna.study.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space)


def distributions(dimensions: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of these hyperparameters, by name."""
    return {name: _distribution(dimension) for name, dimension in dimensions.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Range):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return CategoricalDistribution(dimension.values)
