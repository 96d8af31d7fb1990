"""The dimensions of a search, each a list of values or a range, and the grids that lists make. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from search_spaces.checks import is_number

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Choice:
    """A searched hyperparameter that takes one of the listed values."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("choice() needs at least one value")
        for value in self.values:
            if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(
                    f"choice() takes texts, finite numbers, True or False, one by one as in choice(8, 16); not {value!r}"
                )
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"choice{self.values} names a value twice")


@dataclass(frozen=True)
class Range:
    """A searched real number in [low, high], drawn uniformly or, if `log` is true, uniformly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (is_number(self.low) and is_number(self.high) and self.low < self.high):
            raise ValueError(f"a range needs finite numbers low < high, not {self.low!r} and {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"log_uniform needs low > 0, not {self.low}")


Dimension = Choice | Range


def choice(*values: Scalar) -> Choice:
    """Return a dimension that searches these values."""
    return Choice(values)


def uniform(low: float, high: float) -> Range:
    """Return a dimension that searches a real number in [low, high]."""
    return Range(low, high)


def log_uniform(low: float, high: float) -> Range:
    """Return a dimension that searches a real number in [low, high], uniformly in its logarithm."""
    return Range(low, high, log=True)


def grid_size(dimensions: Mapping[str, Dimension]) -> float:
    """Number of different configurations of these dimensions; infinite if one of them is a range."""
    return math.prod(len(d.values) if isinstance(d, Choice) else math.inf for d in dimensions.values())


def grid(dimensions: Mapping[str, Dimension]) -> list[dict[str, Scalar]]:
    """All configurations of these dimensions, which must be choices; the last dimension varies fastest."""
    names = list(dimensions)
    values = [d.values for d in dimensions.values() if isinstance(d, Choice)]
    assert len(values) == len(names), "a range has no grid"
    return [dict(zip(names, point, strict=True)) for point in product(*values)]


def check_grid(where: str, dimensions: Mapping[str, Dimension], trials: int) -> None:
    """Raise ValueError unless a search of the whole grid is possible with this number of trials."""
    ranges = [name for name, dimension in dimensions.items() if isinstance(dimension, Range)]
    if ranges:
        raise ValueError(
            f"{where}: {ranges[0]} is a range, of which there is no grid: list its values with choice(...), or take "
            "Budget(search='tpe') or 'random'"
        )
    if grid_size(dimensions) > trials:
        raise ValueError(
            f"{where}: its grid has {grid_size(dimensions)} configurations, more than Budget(trials={trials}): raise trials, "
            "or take Budget(search='tpe') or 'random'"
        )
