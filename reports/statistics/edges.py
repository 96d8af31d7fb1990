"""Tells whether a winner's hyperparameter is at the edge of its searched range or list of choices.

If it is, the best value may lie outside of what was searched.
"""

from __future__ import annotations

import math
from typing import Literal

from search_spaces.language import Choice, Dimension, Range

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
