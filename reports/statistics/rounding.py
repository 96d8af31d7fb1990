"""Scores rounded as the report prints them, so that "best" in a table never contradicts the digits beside it."""

from __future__ import annotations

PRINTED_DIGITS = 2  # decimals of a score in percent points


def round_as_printed(score: float) -> float:
    """The score with the decimals that the tables print; equals `float(f"{score:.2f}")`, ties included."""
    return round(float(score), PRINTED_DIGITS)  # of a Python float: numpy's own rounding differs at ties
