"""Budget curve: the best validation score that a search of n configurations can be expected to find.

`reports/statistics/expected_best.py` computes the curves; `reports/sections/search_quality.py` prints them as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.plots import label_placement
from reports.plots.canvas import (
    GREY,
    INK,
    LINES,
    PALE,
    PAPER,
    SMALL,
    PanelGrid,
    explain_empty_axes,
    figure_with_axes,
    note_of,
    position_of,
    score_axis,
    short,
    title_of,
    title_panel,
    truncate_to_width,
)  # fmt: skip
from reports.plots.figure_pages import FigurePage, ReportFigure, pages
from reports.plots.method_styles import FamilyStyle, families_in, method_styles, methods_by_family
from reports.plots.tiles import joined
from reports.render.markdown import plural
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

FEW = 8  # the most lines that can be told apart in one panel
COLUMNS = ["method", "title", "family", "n", "expected", "planned"]


def figures(sweep: AnalyzedSweep) -> list[ReportFigure]:
    """With up to `FEW` methods one figure per model, with up to six panels, one per task.

    With more methods one figure per model and task, with a panel per family of methods. No figure if every cell has a single
    configuration.
    """
    manifest = sweep.manifest
    if not manifest.searches:
        return []
    return [
        ReportFigure(
            name=page.name,
            alt=f"Expected best validation score on {manifest.models[page.model].title} against the number of tries",
            draw=partial(draw, sweep, page),
        )
        for page in pages(manifest, "tries", 6 if len(manifest.methods) <= FEW else 1)
    ]


def rows(sweep: AnalyzedSweep, model: str, task: str, order: Sequence[str]) -> pd.DataFrame:
    """One row per method and number of tries n: method, title, family, n, expected, planned.

    expected: expected best validation score after n tries, percent points. planned: configurations that the cell may try.
    `order`: labels of the methods, in the order of the rows.
    """
    manifest = sweep.manifest
    found = []
    for label in order:
        facts = manifest.methods[label]
        expected = sweep.expected_best.get(Cell(model=model, task=task, method=label), [])
        planned = manifest.planned_tries(label)
        found += [(label, facts.title, facts.family, n, value, planned) for n, value in enumerate(expected, start=1)]
    return pd.DataFrame(found, columns=COLUMNS)


def draw(sweep: AnalyzedSweep, page: FigurePage) -> Figure:
    """The figure of one page: a panel per task or, with more than `FEW` methods, a panel per family of methods."""
    manifest = sweep.manifest
    order = methods_by_family(sweep, page.model)
    tables = {task: rows(sweep, page.model, task, order) for task in page.tasks}
    by_family = len(manifest.methods) > FEW
    panels = (
        [(page.tasks[0], name) for name in families_in(manifest)] if by_family else [(task, "") for task in page.tasks]
    )
    grid = PanelGrid(columns=min(2, len(panels)), height=1.35 if by_family else 1.9, gap_x=0.42, gap_y=0.25)
    title = title_of(manifest, page.model, "What a search budget buys")
    first = manifest.tasks[page.tasks[0]]
    title += f", {short(first.title)} ({first.score_title})" if by_family else ""
    axis_labels = ("configurations tried, n", "expected best validation score, percent points")
    figure, axes = figure_with_axes(title, note_of(sweep), len(panels), grid, _legend(by_family), axis_labels)
    for panel, (task, family) in zip(axes, panels, strict=True):
        facts = manifest.tasks[task]
        own = tables[task][tables[task]["family"] == family] if by_family else tables[task]
        title_panel(
            figure,
            position_of(panel),
            (family or "other") if by_family else f"{short(facts.title)} ({facts.score_title})",
            _counted(own, manifest.budget.search_seeds),
        )
        _draw(panel, own, tables[task], method_styles(manifest))
    return figure


def _counted(own: pd.DataFrame, seeds: int) -> str:
    """The numbers of tries and of seeds per try in a panel, as text."""
    if own.empty:
        return ""
    tried = own.groupby("method")["n"].max()
    low, high = tried.min(), tried.max()
    return f"n = {low if low == high else f'{low} to {high}'} tries per method, {plural(seeds, 'seed')} each"


def _legend(by_family: bool) -> list[Line2D]:
    """Legend entries; `by_family`: there is a panel per family of methods."""
    end = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 4.5}
    marks = [
        Line2D([], [], label="the whole budget is used", **end),  # type: ignore[arg-type]
        Line2D([], [], label="tries are missing", **end, markerfacecolor=PAPER),  # type: ignore[arg-type]
    ]
    if by_family:
        marks.append(Line2D([], [], color=PALE, linewidth=0.8, label="methods of other families"))
    return marks


def _draw(axes: Axes, own: pd.DataFrame, everything: pd.DataFrame, styles: Mapping[str, FamilyStyle]) -> None:
    """Draw the panel's `own` curves in colour, and the task's other curves in `everything` in grey."""
    if own.empty:
        return explain_empty_axes(axes, "no trial has ended with a score")
    last = int(everything["n"].max())
    label_share = 0.32 if len(everything) else 0.0
    axes.set_xlim(1 - 0.03 * last, last + max(label_share * last, 0.5))
    axes.set_xticks([tick for tick in MaxNLocator(6, integer=True).tick_values(1, last) if 1 <= tick <= last])
    # The lowest 3 % are cut off: the first points of one bad method would squeeze all other curves together.
    low = float(np.quantile(everything["expected"], 0.03))
    score_axis(axes, low, float(everything["expected"].max()), 5, True)
    other_methods = everything[~everything["method"].isin(own["method"])]
    lines = [line for _, line in other_methods.groupby("method", sort=False)]
    axes.plot(
        joined([line["n"] for line in lines]),
        joined([line["expected"] for line in lines]),
        color=PALE,
        linewidth=0.5,
        zorder=1.1,
    )
    for position, (method, line) in enumerate(own.groupby("method", sort=False)):
        style = styles[str(method)]
        axes.plot(
            line["n"], line["expected"], color=style.colour, linewidth=1.1, linestyle=LINES[position % len(LINES)]
        )
        end = line.iloc[-1]
        complete = end["n"] >= end["planned"]
        axes.plot(
            end["n"], end["expected"], style.marker, color=style.colour, markersize=5, zorder=3, markeredgewidth=0.4 if complete
            else 0.9, markeredgecolor=PAPER if complete else style.colour, markerfacecolor=style.colour if complete else PAPER,
        )  # fmt: skip
    return _name_ends(axes, own)


def _name_ends(axes: Axes, own: pd.DataFrame) -> None:
    """Write each method's title to the right of its curve and join it to the curve's end by a thin line, without overlaps."""
    ends = own.groupby("method", sort=False).tail(1)
    panel_height = axes.get_window_extent().height
    low, high = axes.get_ylim()
    gap = 1.25 * SMALL * axes.figure.dpi / 72 / panel_height * (high - low)
    heights = label_placement.stacked(list(ends["expected"]), gap, low + gap / 2, high - gap / 2)
    right = int(own["n"].max())
    edge = axes.get_xlim()[1]
    start = right + 0.14 * (edge - right)
    inches = axes.get_window_extent().width / axes.figure.dpi * (edge - start) / (edge - axes.get_xlim()[0])
    for row, height in zip(ends.itertuples(), heights, strict=True):
        axes.plot([row.n, start], [row.expected, height], color=GREY, linewidth=0.35, zorder=0.9)
        axes.text(
            start, height, truncate_to_width(short(row.title), inches, SMALL), fontsize=SMALL, va="center", color=INK
        )
