"""Rounds scores as the report prints them. The best method is chosen by rounded scores, so that equal printed scores are
all marked as best.
"""

from __future__ import annotations

PRINTED_DIGITS = 2  # decimals of a score in percent points


def round_as_printed(score: float) -> float:
    """Return the score, in percent points, rounded to two decimals like the printed `f"{score:.2f}"`, ties included."""
    return round(float(score), PRINTED_DIGITS)  # converted to a Python float first: numpy rounds ties differently
