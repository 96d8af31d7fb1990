"""Finds the method that a row of a space names: one of `METHODS`, or that of all rows of the library peft."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.language import Scalar
from search_spaces.peft_rows import PEFT
from trainables.methods import METHODS
from trainables.methods.base import Method
from trainables.methods.peft_row import PeftRow


def method_type(name: str) -> type[Method]:
    """Return the class of the method that a row names: one of `METHODS`, or that of all rows of peft."""
    return PeftRow if name == PEFT else METHODS[name]


def make_method(name: str, settings: Mapping[str, Scalar]) -> Method:
    """Return the method that a row names with these settings. Raises TypeError for a setting that it does not have."""
    return PeftRow(config=settings) if name == PEFT else METHODS[name](**settings)
