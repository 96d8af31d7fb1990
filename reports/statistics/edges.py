"""Tells whether a winner's hyperparameter is at the edge of its searched range or list of choices.

If it is, the best value may lie outside of what was searched; `wider` says what to search instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from search_spaces.language import Choice, Dimension, Range, Scalar

MARGIN = 0.05  # values closer to an end than this share of the range are at its edge (log scale for log ranges)
MIN_CHOICES = 3  # lists with fewer choices have no inner value, so that every value would be at the edge

Edge = Literal["", "lowest", "highest"]


def edge(dimension: Dimension, value: object) -> Edge:
    """Return at which end of the searched range or list the value is; "" if at neither, or if the values are not numbers."""
    number = as_number(value)
    if number is None:
        return ""
    return _edge_of_range(dimension, number) if isinstance(dimension, Range) else _edge_of_choice(dimension, number)


def as_number(value: object) -> float | None:
    """Convert a number or its text to float; None for other text, booleans, NaN and infinite numbers."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _edge_of_range(dimension: Range, number: float) -> Edge:
    low, high = dimension.low, dimension.high
    if dimension.log:
        if number <= 0:
            return ""
        low, high, number = math.log(low), math.log(high), math.log(number)
    share = (number - low) / (high - low)
    return "lowest" if share <= MARGIN else "highest" if share >= 1 - MARGIN else ""


def _edge_of_choice(dimension: Choice, number: float) -> Edge:
    values = [as_number(value) for value in dimension.values]
    numbers = [value for value in values if value is not None]
    if len(numbers) < MIN_CHOICES or len(numbers) < len(values):
        return ""
    return "lowest" if number <= min(numbers) else "highest" if number >= max(numbers) else ""


def wider(dimension: Dimension, end: Edge) -> Dimension:
    """Return the dimension with more room beyond one of its ends, the others unchanged; numbers have three significant digits.

    A list gets one value more, as far beyond the end as the second value is before it (as a factor, for positive numbers; a
    single value gets one ten times as large or small). A range on a log scale becomes ten times as wide at that end, another
    one twice as long. Whole numbers stay whole.
    """
    if isinstance(dimension, Range):
        length = dimension.high - dimension.low
        if end == "highest":
            return replace(dimension, high=dimension.high * 10 if dimension.log else dimension.high + length)
        return replace(dimension, low=dimension.low / 10 if dimension.log else dimension.low - length)
    numbers = sorted(number for value in dimension.values if (number := as_number(value)) is not None)
    positive, whole = min(numbers) > 0, all(isinstance(value, int) for value in dimension.values)
    last, before = (numbers[-1], numbers[-2:][0]) if end == "highest" else (numbers[0], numbers[:2][-1])
    if last == before:  # a single value
        before = last / 10 if end == "highest" else last * 10
    further = last * last / before if positive else 2 * last - before
    value: Scalar = max(round(further), int(positive)) if whole else float(f"{further:.2g}")
    if value in numbers:  # as for the lower end of 1, 2: there is no whole number between 0 and 1
        return dimension
    return Choice((*dimension.values, value) if end == "highest" else (value, *dimension.values))


def highest(dimension: Dimension) -> float:
    """Return the largest number that the dimension can take."""
    if isinstance(dimension, Range):
        return dimension.high
    return max(number for value in dimension.values if (number := as_number(value)) is not None)


def as_code(dimension: Dimension) -> str:
    """Return the dimension as it is written in a space file."""
    if isinstance(dimension, Choice):
        return f"choice({', '.join(map(_written, dimension.values))})"
    return f"{'log_uniform' if dimension.log else 'uniform'}({_written(dimension.low)}, {_written(dimension.high)})"


def _written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else repr(value)
