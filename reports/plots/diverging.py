"""Colours for losses and gains: white for no change, darker for larger changes; on a dark page, brighter for larger ones.

Losses and gains differ in hue only. In a grey print they look the same, so a figure with these colours must also show the sign
of the changes as text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

from reports.plots.canvas import INK, PAPER

STEPS = 4  # colours for losses, and as many for gains


@dataclass(frozen=True, kw_only=True)
class DivergingColour:
    """`colour`: on a white page. `dark`: on a dark page. `ink`: colour of text on it; a dark page replaces this one, too."""

    colour: str
    dark: str
    ink: str = INK


NOTHING = DivergingColour(colour=PAPER, dark="#16181b")
LOSSES = (
    DivergingColour(colour="#fbe3d2", dark="#38261a"),
    DivergingColour(colour="#f3b891", dark="#57351d"),
    DivergingColour(colour="#dd8046", dark="#84481a"),
    DivergingColour(colour="#8f3a00", dark="#ffb47a", ink=PAPER),
)
GAINS = (
    DivergingColour(colour="#dbe8f6", dark="#1b2b3b"),
    DivergingColour(colour="#a5c8ea", dark="#22415f"),
    DivergingColour(colour="#6299cf", dark="#2f5f8f"),
    DivergingColour(colour="#1f5c99", dark="#8ec8ff", ink=PAPER),
)


def colour_of(change: float, step: float) -> DivergingColour:
    """The colour of the multiple of `step` that is nearest to the change; the strongest colour for larger changes."""
    number = min(STEPS, math.floor(abs(change) / step + 0.5))
    return NOTHING if number == 0 else (LOSSES if change < 0 else GAINS)[number - 1]


def step_for(largest: float) -> float:
    """The smallest of 0.1, 0.2, 0.5, 1, 2, 5, ... for which `colour_of` rounds the change `largest` to at most `STEPS` steps."""
    steps = (digit * 10.0**power for power in count(-1) for digit in (1, 2, 5))
    return next(step for step in steps if step * (STEPS + 0.5) >= largest)


def signed(number: float, digits: int) -> str:
    """The number as text with `digits` decimals and a sign, but no sign if all its digits are zero: −12, +0.3, 0.0."""
    shown = f"{abs(number):.{digits}f}"
    return shown if float(shown) == 0 else ("−" if number < 0 else "+") + shown
