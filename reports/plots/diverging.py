"""Colours for changes in two directions: paper where nothing changes, darker the larger the change, on a dark page brighter.

Losses and gains differ in hue. In grey they do not, so a figure says the sign in every cell that has a colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

from reports.plots.canvas import INK, PAPER

STEPS = 4  # in either direction


@dataclass(frozen=True, kw_only=True)
class Shade:
    """`colour` on white, `dark` on a dark page; `ink` is what can be read on both, as the page replaces it too."""

    colour: str
    dark: str
    ink: str = INK


NOTHING = Shade(colour=PAPER, dark="#16181b")
LOSSES = (
    Shade(colour="#fbe3d2", dark="#38261a"),
    Shade(colour="#f3b891", dark="#57351d"),
    Shade(colour="#dd8046", dark="#84481a"),
    Shade(colour="#8f3a00", dark="#ffb47a", ink=PAPER),
)
GAINS = (
    Shade(colour="#dbe8f6", dark="#1b2b3b"),
    Shade(colour="#a5c8ea", dark="#22415f"),
    Shade(colour="#6299cf", dark="#2f5f8f"),
    Shade(colour="#1f5c99", dark="#8ec8ff", ink=PAPER),
)


def shade(change: float, step: float) -> Shade:
    """That of the multiple of `step` which is nearest, the strongest for what lies beyond."""
    number = min(STEPS, math.floor(abs(change) / step + 0.5))
    return NOTHING if number == 0 else (LOSSES if change < 0 else GAINS)[number - 1]


def step_for(largest: float) -> float:
    """The smallest of 0.1, 0.2, 0.5, 1, 2, 5, ... in whose steps a change of this size has a colour of its own."""
    steps = (digit * 10.0**power for power in count(-1) for digit in (1, 2, 5))
    return next(step for step in steps if step * (STEPS + 0.5) >= largest)


def signed(number: float, digits: int) -> str:
    """With a sign, unless it is zero as shown: −12, +0.3, 0.0."""
    shown = f"{abs(number):.{digits}f}"
    return shown if float(shown) == 0 else ("−" if number < 0 else "+") + shown
