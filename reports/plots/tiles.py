"""Panels for figures that have too many of them to give each its own Matplotlib axes.

One panel's axes take 50 ms for the PNG and the SVG file of a figure. A tile is a rectangle on axes that cover the whole figure
and have the inch as their unit; it consists of a few lines, clipped at its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle as Patch
from matplotlib.ticker import MaxNLocator

from reports.plots.canvas import FAINT, GREY, SMALL, WIDTH, Rectangle, write

Numbers = Any  # anything that numpy converts to an array of floats


@dataclass(frozen=True, kw_only=True)
class AxisScale:
    """One axis of a tile: its limits, its ticks (value, text), and whether it is logarithmic."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, values: Numbers) -> np.ndarray:
        """The positions of values on the axis: 0 at `low`, 1 at `high`, below 0 or above 1 outside the limits."""
        values = np.asarray(values, dtype=float)
        low, high = self.low, self.high
        if self.log:
            low, high, values = np.log(low), np.log(high), np.log(values)
        return (values - low) / (high - low)


def score_axis_scale(low: float, high: float) -> AxisScale:
    """A vertical axis of scores from `low` to `high` (percent points), with a margin above and below."""
    pad = 0.08 * max(high - low, 0.2)
    return linear_axis_scale(low - pad, high + pad, MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))


def linear_axis_scale(low: float, high: float, ticks: Numbers) -> AxisScale:
    """A linear axis with those of the ticks that lie within its limits."""
    return AxisScale(low=low, high=high, ticks=tuple((float(t), f"{t:g}") for t in ticks if low <= t <= high))


def overlay_axes(figure: Figure) -> Axes:
    """Add invisible axes that cover the whole figure and have the inch as their unit; return them."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, figure.get_figheight())
    axes.set_axis_off()
    return axes


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A panel without axes of its own, drawn on the overlay axes `axes`. Its methods take coordinates in data units."""

    axes: Axes
    rectangle: Rectangle
    x: AxisScale
    y: AxisScale

    def plot(self, x: Numbers, y: Numbers, *, cut: bool = True, **style: Any) -> None:
        """Draw a line or marks, clipped at the panel's edges if `cut`.

        NaN interrupts a line, so that many lines of one style can be drawn as one Matplotlib artist.
        """
        line = Line2D(*self._inches(x, y), **style)
        self.axes.add_artist(line)
        if cut:
            line.set_clip_path(self._edge())

    def shade_span(self, one: float, other: float, colour: str) -> None:
        """Shade the strip between two values of the horizontal axis."""
        left, bottom, width, height = self.rectangle
        start, end = sorted(np.clip(self.x.share([one, other]), 0, 1))
        self.axes.add_artist(
            Patch((left + width * start, bottom), width * (end - start), height, color=colour, linewidth=0, zorder=0.3)
        )

    def draw_axes(self, numbered_left: bool, numbered_below: bool) -> None:
        """Draw grid, axes and ticks; numbers at the ticks only at the left or below where this is asked for."""
        left, bottom, width, height = self.rectangle
        xs, ys = (
            self._inches([tick for tick, _ in self.x.ticks], self.y.low)[0],
            self.y.share([t for t, _ in self.y.ticks]),
        )
        ys = bottom + height * ys
        grid = [((x, bottom), (x, bottom + height)) for x in xs] + [((left, y), (left + width, y)) for y in ys]
        edges = [((left, bottom + height), (left, bottom)), ((left, bottom), (left + width, bottom))]
        ticks = [((x, bottom), (x, bottom - 0.03)) for x in xs] + [((left, y), (left - 0.03, y)) for y in ys]
        self.axes.add_collection(LineCollection(grid, colors=FAINT, linewidths=0.5, zorder=0.2), autolim=False)
        self.axes.add_collection(LineCollection(edges + ticks, colors=GREY, linewidths=0.5, zorder=0.5), autolim=False)
        figure = self.axes.figure
        assert isinstance(figure, Figure)
        if numbered_left:
            for y, (_, text) in zip(ys, self.y.ticks, strict=True):
                write(figure, left - 0.06, y, text, SMALL, ha="right", va="center_baseline")
        if numbered_below:
            for x, (_, text) in zip(xs, self.x.ticks, strict=True):
                write(figure, x, bottom - 0.06, text, SMALL, ha="center", va="top")

    def _inches(self, x: Numbers, y: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """Positions on the figure, in inches, of points given in data units."""
        left, bottom, width, height = self.rectangle
        return left + width * self.x.share(x), bottom + height * self.y.share(y)

    def _edge(self) -> Patch:
        """The panel's rectangle as a clipping path."""
        left, bottom, width, height = self.rectangle
        return Patch((left, bottom), width, height, transform=self.axes.transData)


def joined(lines: Sequence[Numbers]) -> np.ndarray:
    """The values of all lines one after the other, each followed by NaN, so that they are drawn as one interrupted line."""
    return np.concatenate([part for line in lines for part in (np.asarray(line, dtype=float), [np.nan])] or [[]])
