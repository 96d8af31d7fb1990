"""What proposes the configurations of one cell: a grid or random draws; `sampler.py` has the search that learns from results.

Evenly spread points, random draws and the order of a grid have seeds that all methods on one model and task share, so that these
start with the same learning rates and none has an advantage by chance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Literal

import numpy as np

from search_spaces.dimensions import Dimension, Range, Scalar, grid, grid_size
from search_spaces.language import Cell
from search_spaces.records import Outcome
from trainables.seeds import derive


class Study(ABC):
    """Proposes the configurations of one cell. `ask` and `tell` must be called in the order of the configurations' numbers.

    `dimensions`: the searched hyperparameters, by name. `limit`: number of configurations that can be asked for: all of a
    finite grid, at most. `seed`: the seed of the space. Proposals depend only on it, on the cell, and on the results told before.
    """

    # Of each objective: the validation score, and in a search for two the number of trained parameters.
    directions: tuple[Literal["maximize", "minimize"], ...] = ("maximize",)

    def __init__(self, dimensions: Mapping[str, Dimension], num_configurations: int, seed: int, cell: Cell):
        self.dimensions = dict(dimensions)
        self.limit = int(min(num_configurations, grid_size(dimensions)))
        self._shared_seed = derive(seed, "search", cell.model, cell.task)
        self._asked: list[dict[str, Scalar]] = []
        self._seen: set[tuple[Scalar, ...]] = set()

    @property
    def names(self) -> list[str]:
        """The names of the searched hyperparameters."""
        return list(self.dimensions)

    @property
    def num_asked(self) -> int:
        return len(self._asked)

    def parameters_of(self, number: int) -> dict[str, Scalar]:
        """Return the searched hyperparameters of configuration `number`, by name."""
        return dict(self._asked[number])

    def ask(self) -> dict[str, Scalar]:
        """Return the next configuration, by hyperparameter name. It was never returned before."""
        assert self.num_asked < self.limit
        return self.replay(self.propose())

    @abstractmethod
    def propose(self) -> Mapping[str, Scalar]:
        """Return a configuration that was not asked for yet."""

    def replay(self, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Add a given configuration instead of a proposal, one from the ledger when a sweep is continued, and return it."""
        self._asked.append({name: parameters[name] for name in self.dimensions})
        self._seen.add(self._key(parameters))
        return self.parameters_of(-1)

    def tell(self, number: int, outcome: Outcome, curve: Mapping[int, float]) -> None:
        """Take note of how configuration `number` ended. `curve`: its best scores by epoch, from the first that counts."""
        return

    def objectives(self, outcome: Outcome) -> list[float]:
        """Return what a configuration that was trained to its end achieved, in the order of `directions`."""
        return [outcome.best_score]

    def is_new(self, parameters: Mapping[str, Scalar]) -> bool:
        """Return whether this configuration was not asked for yet."""
        return self._key(parameters) not in self._seen

    def first_new(self, points: Iterable[Mapping[str, Scalar]]) -> Mapping[str, Scalar]:
        """Return the first of these configurations that was not asked for yet."""
        return next(point for point in points if self.is_new(point))

    def _key(self, parameters: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
        return tuple(parameters[name] for name in self.dimensions)


class GridStudy(Study):
    """All configurations of a finite grid, in a random order."""

    def __init__(self, dimensions: Mapping[str, Dimension], num_configurations: int, seed: int, cell: Cell):
        super().__init__(dimensions, num_configurations, seed, cell)
        self._points = shuffled_grid(dimensions, self._shared_seed)

    def propose(self) -> Mapping[str, Scalar]:
        return self.first_new(self._points)


class RandomStudy(Study):
    """Independent uniform draws; on its log scale, if a dimension has one. A configuration of a finite grid is drawn once."""

    def propose(self) -> Mapping[str, Scalar]:
        drawn = ({name: self._draw(name, self.num_asked, attempt) for name in self.dimensions} for attempt in count())
        return self.first_new(drawn)

    def _draw(self, name: str, number: int, attempt: int) -> Scalar:
        dimension = self.dimensions[name]
        draw = np.random.default_rng(derive(self._shared_seed, "random", name, number, attempt))
        if isinstance(dimension, Range):
            return quantile(dimension, draw.random())
        return dimension.values[draw.integers(len(dimension.values))]


def shuffled_grid(dimensions: Mapping[str, Dimension], seed: int) -> list[dict[str, Scalar]]:
    """Return all configurations in a random order; [] if a dimension is a range."""
    if grid_size(dimensions) == np.inf:
        return []
    points = grid(dimensions)
    order = np.random.default_rng(derive(seed, "grid")).permutation(len(points))
    return [points[i] for i in order]


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
            columns[name] = [quantile(dimension, share) for share in shares]
        else:
            rounds = -(-number // len(dimension.values))
            order = np.concatenate([draw.permutation(len(dimension.values)) for _ in range(rounds)])
            columns[name] = [dimension.values[i] for i in order[:number]]
    return [{name: column[i] for name, column in columns.items()} for i in range(number)]


def quantile(dimension: Range, share: float) -> float:
    """Return the value below which this share of a range lies."""
    if dimension.log:
        return float(dimension.low * (dimension.high / dimension.low) ** share)
    return float(dimension.low + (dimension.high - dimension.low) * share)
