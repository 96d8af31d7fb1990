"""Finds winning values at the end of a searched range or list of choices; the best value may then be outside.

Pure functions of a dimension and a value.
"""

from __future__ import annotations

import math
from typing import Literal

from search_spaces.language import Choice, Dimension, Range

MARGIN = 0.05  # of a range's width (of its logarithm, where it is searched in logarithms)
MIN_CHOICES = 3  # of two choices one is always at the edge

Edge = Literal["", "lowest", "highest"]


def edge(dimension: Dimension, value: object) -> Edge:
    """The end of the dimension that the value is at; "" for neither and for values that have no order."""
    number = as_number(value)
    if number is None:
        return ""
    return _edge_of_range(dimension, number) if isinstance(dimension, Range) else _edge_of_choice(dimension, number)


def as_number(value: object) -> float | None:
    """The value as a number, from MLflow's text as well; None for words, booleans and infinite or missing numbers."""
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
