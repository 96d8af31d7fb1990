"""Checks of a method's settings, with error messages that name the setting, its value and what is allowed."""

from __future__ import annotations

from search_spaces.language import Scalar
from trainables.methods.spec import Shape


def require_int(name: str, value: Scalar, low: int, high: int, what: str = "") -> None:
    """Raise ValueError unless `value` is a whole number in [low, high]; `what` explains the upper bound."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        bound = f" ({what})" if what else ""
        raise ValueError(f"{name} = {value!r}: must be a whole number between {low} and {high}{bound}")


def require_number(name: str, value: Scalar, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} = {value!r}: must be a number between {low} and {high}")


def require_one_of(name: str, value: Scalar, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(allowed)}")


def require_share(name: str, value: Scalar) -> None:
    """Raise ValueError unless `value` is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} = {value!r}: must be a share in [0, 1)")


def require_norm_of_sum(shape: Shape | None) -> None:
    """Raise ValueError if the backbone does not normalise the sum of a sub-layer's output and the residual."""
    if shape and not shape.sums_normalized:
        raise ValueError(
            "its adapter reads the sum of the feed-forward part's output and the residual through the norm that follows it, and "
            "this model has none there: it normalises what its sub-layers return. Take a method whose adapter reads the output "
            "itself, such as adapter or parallel, or another model"
        )
