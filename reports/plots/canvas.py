"""The layout of every figure: panels in a grid, titles, axis labels, and a legend of one or more lines.

All lengths are in inches, font sizes in points (1/72 inch). A figure is as wide as the text of a page, so that it is printed
without scaling. Positions are computed here and not by Matplotlib's automatic layout, which is slow with a hundred panels and
would not align the panels of two figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.data.manifest import Manifest
from reports.render.markdown import plain_text
from reports.statistics.analysis import AnalyzedSweep

WIDTH = 7.2  # inches
WIDE = 20.0  # percent points: the most that a panel is extended for intervals, above and below means that are close together
TEXT, SMALL, TITLE = 7.0, 6.2, 8.5  # points
# Colours of text, lines and backgrounds. On a dark screen the report's page for a browser replaces each of them.
INK, GREY, PALE, FAINT, PAPER = "#222222", "#5c5c5c", "#b4b4b4", "#e4e4e4", "#ffffff"
# Line styles that tell the lines of one family of methods apart.
LINES: Any = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_HEAD, _PANEL_HEAD, _LINE = 0.42, 0.31, 0.155  # inches: heights of the figure's title, a panel's title, a legend line


@dataclass(frozen=True, kw_only=True)
class PanelGrid:
    """The grid of panels of a figure: number of columns and, in inches, height of a panel, gaps between panels, side margins."""

    columns: int
    height: float
    gap_x: float = 0.14
    gap_y: float = 0.1
    left: float = 0.56
    right: float = 0.08


Rectangle = tuple[float, float, float, float]  # left, bottom, width, height in inches


def blank_figure(
    title: str, note: str, number: int, grid: PanelGrid, legend: Sequence[Line2D], labels: tuple[str, str]
) -> tuple[Figure, list[Rectangle]]:
    """A figure with its title, a note below the title, and its legend; and the rectangles of `number` panels, row by row.

    `labels`: text below all panels, for the horizontal axes, and text left of them, for the vertical axes.
    """
    rows = -(-number // grid.columns)
    lines = _flowed(legend)
    foot = 0.45 + _LINE * len(lines)
    top = _HEAD if note else _HEAD - 0.14
    row = grid.height + _PANEL_HEAD + grid.gap_y
    total = top + rows * row + foot - grid.gap_y
    figure = Figure(figsize=(WIDTH, total), dpi=100)
    FigureCanvasAgg(figure)
    width = (WIDTH - grid.left - grid.right - (grid.columns - 1) * grid.gap_x) / grid.columns
    rectangles = []
    for position in range(number):
        down, column = divmod(position, grid.columns)
        bottom = total - top - down * row - _PANEL_HEAD - grid.height
        rectangles.append((grid.left + column * (width + grid.gap_x), bottom, width, grid.height))
    _words(figure, title, note, labels, grid, foot)
    for number_of_line, line in enumerate(reversed(lines)):
        _write_legend(figure, line, 0.09 + _LINE * number_of_line)
    return figure, rectangles


def figure_with_axes(
    title: str, note: str, number: int, grid: PanelGrid, legend: Sequence[Line2D], labels: tuple[str, str]
) -> tuple[Figure, list[Axes]]:
    """The figure of `blank_figure` with empty axes in each rectangle, and these axes in the order of the rectangles."""
    figure, rectangles = blank_figure(title, note, number, grid, legend, labels)
    total = figure.get_figheight()
    axes = [
        figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))
        for left, bottom, width, height in rectangles
    ]
    for panel in axes:
        _quiet(panel)
    return figure, axes


def position_of(axes: Axes) -> Rectangle:
    """The position of axes in a figure of this module, in inches."""
    left, bottom, width, height = axes.get_position().bounds
    total = axes.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    return left * WIDTH, bottom * total, width * WIDTH, height * total


def title_panel(figure: Figure, rectangle: Rectangle, title: str, note: str = "") -> None:
    """Write a panel's title above it and, between both, a note in smaller type; both texts are cut to the panel's width."""
    left, bottom, width, height = rectangle
    for text, size, colour, above in ((title, TEXT, INK, 0.155), (note, SMALL, GREY, 0.04)):
        if text:
            write(
                figure, left, bottom + height + above, truncate_to_width(text, width, size), size, colour, va="bottom"
            )


def write(figure: Figure, x: float, y: float, text: str, size: float = TEXT, colour: str = INK, **style: Any) -> None:
    """Write a line of text on the figure; `x`, `y` are inches from its lower left corner, `size` is in points."""
    figure.text(x, y, text, transform=figure.dpi_scale_trans, fontsize=size, color=colour, **style)


def explain_empty_panel(figure: Figure, rectangle: Rectangle, text: str) -> None:
    """Write `text` into the middle of an empty panel: the reason why it shows nothing."""
    left, bottom, width, height = rectangle
    shown = truncate_to_width(text, width - 0.1, SMALL)
    write(figure, left + width / 2, bottom + height / 2, shown, SMALL, GREY, ha="center", va="center")


def explain_empty_axes(axes: Axes, text: str) -> None:
    """Remove the ticks of empty axes and write `text` into them as `explain_empty_panel` does."""
    axes.set_xticks([])
    axes.set_yticks([])
    explain_empty_panel(axes.get_figure(root=True), position_of(axes), text)  # type: ignore[arg-type]


def truncate_to_width(text: str, inches: float, size: float) -> str:
    """The text; if it is wider than `inches` at this font size (points), cut and with "…" at its end."""
    shown = text
    while shown and width_of(shown, size) > inches:
        text = text[:-1]
        shown = text.rstrip() + "…" if text else ""
    return shown


@cache
def width_of(text: str, size: float) -> float:
    """Width of a line of text in inches, plus 3 %: in a PNG image, letters are up to that much wider than the font defines."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return 1.03 * width / 72


def short(text: str, longest: int = 40) -> str:
    """A title from a space or a store as one line of at most `longest` characters."""
    plain = plain_text(text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def title_of(manifest: Manifest, model: str, what: str) -> str:
    """A figure's title: what it shows, the model, and the title of the space."""
    return f"{what}: {short(manifest.models[model].title)}, {short(manifest.title, 60)}"


def note_of(sweep: AnalyzedSweep) -> str:
    """A note for figures of a sweep that is not complete or of a space that was changed; "" for all other sweeps."""
    total, done = len(sweep.results), sum(result.ended for result in sweep.results.values())
    so_far = f"so far: {done} of {total} cells complete" if done < total else ""
    changed = "changed from the space as written" if sweep.manifest.reductions else ""
    return "; ".join(part for part in (so_far, changed) if part)


def score_margin(table: pd.DataFrame) -> float:
    """How far a panel extends above the highest and below the lowest mean, in percent points.

    `table`: columns mean, low and high (the ends of an interval, NaN without one). The margin is half the median interval, so
    that a difference smaller than the intervals does not fill the panel. It is at most the range of the means or `WIDE`,
    whichever is larger, so that wide intervals of few seeds do not squeeze the means together; such intervals are cut at the
    edge of the panel.
    """
    spread = float(table["mean"].max() - table["mean"].min())
    reach = float((table["high"] - table["low"]).median()) / 2
    return max(spread / 2, 0.5, min(reach, max(spread, WIDE)) if reach == reach else 0)


def score_axis(axes: Axes, low: float, high: float, number: int, numbered: bool) -> None:
    """Set a vertical axis of scores from `low` to `high`, with a small margin and at most `number` + 1 ticks.

    `numbered`: whether the ticks get numbers.
    """
    pad = 0.06 * max(high - low, 0.2)
    axes.set_ylim(low - pad, high + pad)
    axes.yaxis.set_major_locator(MaxNLocator(number, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(labelleft=numbered)


def magnitude(number: float, _position: object = None) -> str:
    """A count in short form: 1M for 1000000. Matplotlib also passes the position of the tick, which is not used."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


MAGNITUDE = FuncFormatter(magnitude)


def _quiet(axes: Axes) -> None:
    """Give axes a pale grid, thin lines at the left and the bottom only, and small ticks."""
    axes.set_axisbelow(True)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.tick_params(labelsize=SMALL, length=2, width=0.5, color=GREY, labelcolor=INK, pad=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
        spine.set_linewidth(0.6)


def _words(figure: Figure, title: str, note: str, labels: tuple[str, str], grid: PanelGrid, foot: float) -> None:
    """Write title, note and axis labels; `foot` is the height in inches below the panels, for label and legend."""
    height = figure.get_figheight()
    write(figure, 0.06, height - 0.07, truncate_to_width(title, WIDTH - 0.1, TITLE), TITLE, va="top")
    write(figure, 0.06, height - 0.235, truncate_to_width(note, WIDTH - 0.1, TEXT), TEXT, GREY, va="top")
    write(figure, (grid.left + WIDTH - grid.right) / 2, foot - 0.3, labels[0], ha="center", va="top")
    vertical = truncate_to_width(labels[1], height - 0.6, TEXT)
    write(figure, 0.06, (foot + height - _PANEL_HEAD - 0.3) / 2, vertical, va="center", rotation=90)


def _flowed(legend: Sequence[Line2D]) -> list[list[Line2D]]:
    """The entries of the legend, split into lines that are no wider than the figure."""
    lines: list[list[Line2D]] = []
    used = WIDTH
    for entry in legend:
        if used + _width_of_entry(entry) > WIDTH - 0.2:
            lines.append([])
            used = 0.0
        lines[-1].append(entry)
        used += _width_of_entry(entry)
    return lines


def _width_of_entry(entry: Line2D) -> float:
    """Width in inches of a legend entry: marker, text and the gap to the next entry."""
    return width_of(str(entry.get_label()), TEXT) + 0.46


def _write_legend(figure: Figure, line: Sequence[Line2D], height: float) -> None:
    """One centred line of the legend: each marker with its text, `height` inches above the lower edge of the figure."""
    x = (WIDTH - sum(map(_width_of_entry, line))) / 2
    for entry in line:
        marker = Line2D([x + 0.04, x + 0.16, x + 0.28], [height] * 3, markevery=[1], transform=figure.dpi_scale_trans)
        marker.update_from(entry)
        marker.set_transform(figure.dpi_scale_trans)
        figure.add_artist(marker)
        write(figure, x + 0.33, height - 0.003, str(entry.get_label()), va="center")
        x += _width_of_entry(entry)
