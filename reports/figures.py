"""Draws the parameter-efficiency figure of each model, as PNG and SVG: score against trained parameters.

Methods differ in marker and in lightness, so that the figure can be read in grey.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from reports import labels
from reports.cells import collect
from reports.markdown import plain_text
from reports.points import Panel, panels
from reports.store import Sweep
from search_spaces.language import NAME

COLUMNS = 4  # panels beside each other, at most
_MARKERS = "osD^vPX<>*"
_COLOURS = (
    "#222222",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#aa4499",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#777777",
)
_TEXT = 8.0
# The salt keeps the SVG's ids from changing from build to build; a foreign title with dollar signs is no mathematics.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "reports",
    "text.parse_math": False,
    "font.size": _TEXT,
    "axes.linewidth": 0.6,
}

Style = Mapping[str, tuple[str, str]]


def figure_name(model: str) -> str:
    """File name of a model's figure, without its ending. Models may be directories or Hub ids, hence the hash."""
    if NAME.fullmatch(model):
        return f"efficiency_{model}"
    plain = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-")[-40:]
    return f"efficiency_{plain}-{zlib.crc32(model.encode()):08x}"


def write(sweep: Sweep, folder: Path) -> list[Path]:
    """Draw every model's figure into the folder; returns the files."""
    results = collect(sweep)
    files = []
    with mpl.rc_context(_STYLE):
        for model in sweep.manifest.models:
            figure = draw(sweep, model, panels(sweep, model, results))
            for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                path = folder / f"{figure_name(model)}.{ending}"
                # Without a date the same numbers give the same bytes.
                figure.savefig(path, dpi=200 if ending == "png" else 72, metadata=metadata)
                files.append(path)
    return files


def draw(sweep: Sweep, model: str, found: list[Panel]) -> Figure:
    """One model's figure: a pair of panels per task, the search above and the finals below."""
    manifest = sweep.manifest
    columns = min(COLUMNS, len(found))
    bands = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(1.0 + 2.9 * max(columns, 2), 1.3 + 4.6 * bands), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    style = {
        # A hundred methods before a pair of marker and colour comes back.
        label: (_MARKERS[(position + position // 10) % 10], _COLOURS[position % 10])
        for position, label in enumerate(manifest.methods)
    }
    grid = figure.subplots(2 * bands, columns, squeeze=False)
    names = {label: _name(manifest.methods[label].title) for label in manifest.methods}
    for position, panel in enumerate(found):
        band, column = divmod(position, COLUMNS)
        upper, lower = grid[2 * band][column], grid[2 * band + 1][column]
        _draw_search(upper, panel, style)
        _draw_finals(lower, panel, style)
        _scale(upper, lower, panel)
        if column == 0:
            upper.set_ylabel("Validation score of each\nsearch trial, points")
            lower.set_ylabel(f"Test score, points: mean ± std\nof {manifest.budget.final_seeds} final seeds")
    for spare in range(len(found), bands * COLUMNS if bands > 1 else len(found)):
        grid[2 * (spare // COLUMNS)][spare % COLUMNS].set_axis_off()
        grid[2 * (spare // COLUMNS) + 1][spare % COLUMNS].set_axis_off()
    _legend(figure, style, names, max(columns + 1, 3))
    figure.suptitle(_title(sweep, model), fontsize=_TEXT + 1, x=0.01, ha="left")
    # Labels need the finished layout; after that it must not move again.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for position, panel in enumerate(found):
        _label(grid[2 * (position // COLUMNS) + 1][position % COLUMNS], panel, names, manifest.budget.final_seeds)
    return figure


def _title(sweep: Sweep, model: str) -> str:
    manifest = sweep.manifest
    title = f"{_name(manifest.title)}: {_name(manifest.models[model].title)}"
    return f"{title}   (reduced budget, not a result of the full protocol)" if manifest.stamp else title


def _name(text: str) -> str:
    """Foreign text for a figure: one short line."""
    plain = plain_text(text)
    return plain if len(plain) <= 40 else plain[:39] + "…"


def _draw_search(axes: Axes, panel: Panel, style: Style) -> None:
    for label, found in panel.search.items():
        marker, colour = style[label]
        for stopped in (False, True):
            chosen = [point for point in found if point.stopped == stopped]
            axes.scatter(
                [point.trained for point in chosen],
                [point.score for point in chosen],
                s=14,
                marker=marker,
                facecolors="none" if stopped else colour,
                edgecolors=colour,
                linewidths=0.7,
                alpha=0.75,
            )
    trials = sum(len(found) for found in panel.search.values())
    _note(axes, f"n = {trials} trials" if trials else "no trial of the search has finished")
    axes.set_title(_name(panel.title), fontsize=_TEXT + 0.5)


def _draw_finals(axes: Axes, panel: Panel, style: Style) -> None:
    for label, point in panel.finals.items():
        marker, colour = style[label]
        axes.errorbar(
            point.trained,
            point.mean,
            yerr=point.std,
            fmt=marker,
            color=colour,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=1.0,
            capsize=2.5,
        )
    if not panel.finals:
        _note(axes, "no final has finished")
    axes.set_xlabel("trained parameters")


def _note(axes: Axes, text: str) -> None:
    """A remark under the panel's upper edge, where the margin of the scale keeps points away."""
    axes.text(0.98, 0.975, text, transform=axes.transAxes, ha="right", va="top", fontsize=_TEXT - 1, color="0.35")


def _scale(upper: Axes, lower: Axes, panel: Panel) -> None:
    """The same logarithmic axis for both panels, with room for labels; scores with room for the remark."""
    sizes = [point.trained for found in panel.search.values() for point in found]
    sizes += [point.trained for point in panel.finals.values()]
    low, high = (min(sizes), max(sizes)) if sizes else (1e4, 1e6)
    reach = max(high / low, 10.0)
    for axes in (upper, lower):
        axes.set_xscale("log")
        axes.set_xlim(low / reach**0.25, high * reach**0.25)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if reach > 30 else (1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(_magnitude))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(y=0.18)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes, empty in ((upper, not panel.search), (lower, not panel.finals)):
        if empty:
            axes.yaxis.set_major_locator(NullLocator())


def _magnitude(number: float, _position: object = None) -> str:
    """1000000 as 1M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _legend(figure: Figure, style: Style, names: Mapping[str, str], columns: int) -> None:
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=5, label=names[label])
        for label, (marker, colour) in style.items()
    ]
    hollow = {"linestyle": "none", "marker": "o", "markerfacecolor": "none", "color": "0.3", "markersize": 5}
    handles.append(Line2D([], [], label="hollow: stopped early by ASHA", **hollow))  # type: ignore[arg-type]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), columns), frameon=False, fontsize=_TEXT
    )


def _label(axes: Axes, panel: Panel, names: Mapping[str, str], planned: int) -> None:
    """Write each method beside its mark, with the number of finals where it is not the planned one."""
    taken: list[labels.Box] = []
    marks = []
    for label, point in panel.finals.items():
        spread = point.std or 0.0
        x, low = axes.transData.transform((point.trained, point.mean - spread))
        _, middle = axes.transData.transform((point.trained, point.mean))
        _, high = axes.transData.transform((point.trained, point.mean + spread))
        taken += [(x - 5, middle - 5, x + 5, middle + 5), (x - 4, low - 1, x + 4, high + 1)]
        seeds = f" (n = {point.n})" if point.n != planned else ""
        marks.append(labels.Mark(x=point.trained, y=point.mean, text=names[label] + seeds))
    labels.annotate(axes, marks, taken, _TEXT)
