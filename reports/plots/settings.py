"""Figures of the test score against a numeric setting in which rows of one method differ, such as bottleneck width or depth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.data.manifest import Manifest
from reports.plots.canvas import (
    LINES,
    PAPER,
    PanelGrid,
    explain_empty_axes,
    figure_with_axes,
    note_of,
    position_of,
    score_axis,
    score_margin,
    short,
    title_of,
    title_panel,
)
from reports.plots.figure_pages import FigurePage, ReportFigure, file_name, pages
from reports.plots.method_styles import distinct, method_styles
from reports.plots.series import Series, series
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

_COLUMNS = ["series", "family", "label", "value", "mean", "low", "high", "n"]


def figures(sweep: AnalyzedSweep) -> list[ReportFigure]:
    """One figure per setting and model, with up to six panels, one per task; none if the space has no series."""
    manifest = sweep.manifest
    settings = dict.fromkeys(one.setting for one in series(manifest))
    return [
        ReportFigure(
            name=page.name,
            alt=f"Test scores on {manifest.models[page.model].title} against the setting {setting}",
            draw=partial(draw, sweep, page, setting),
        )
        for setting in settings
        for page in pages(manifest, f"setting_{file_name(setting)}", 6)
    ]


def rows(sweep: AnalyzedSweep, model: str, task: str, setting: str) -> pd.DataFrame:
    """One row per series and row of the space with a score: series, family, label, value (of the setting), mean, low, high, n.

    mean: over n finals on the test split, percent points. low, high: its 95 % interval, NaN with a single final.
    """
    found = []
    for one in series(sweep.manifest):
        for label, value in zip(one.labels, one.values, strict=True):
            cell = Cell(model=model, task=task, method=label)
            result = sweep.results[cell]
            if one.setting == setting and result.mean is not None:
                interval = sweep.standings[cell].interval or (float("nan"), float("nan"))
                found.append((one.title, one.family, label, value, result.mean, *interval, len(result.scores)))
    return pd.DataFrame(found, columns=_COLUMNS)


def draw(sweep: AnalyzedSweep, page: FigurePage, setting: str) -> Figure:
    """The figure of one page: a panel per task, in it a line per series, and the intervals of its means as vertical lines."""
    manifest = sweep.manifest
    tables = {task: rows(sweep, page.model, task, setting) for task in page.tasks}
    styles = _styles(manifest, [one for one in series(manifest) if one.setting == setting])
    grid = PanelGrid(columns=2 if len(tables) == 4 else min(len(tables), 3), height=1.9, gap_x=0.4, gap_y=0.25)
    title = title_of(manifest, page.model, f"Score against {short(setting)}")
    labels = (f"{short(setting)} (logarithmic)" if _wide(tables) else short(setting), "test score, percent points")
    note = "; ".join(part for part in (f"vertical lines: {sweep.interval_coverage}", note_of(sweep)) if part)
    figure, axes = figure_with_axes(title, note, len(tables), grid, list(styles.values()), labels)
    for panel, (task, table) in zip(axes, tables.items(), strict=True):
        facts = manifest.tasks[task]
        title_panel(figure, position_of(panel), f"{short(facts.title)} ({facts.score_title})", _counted(table))
        if table.empty:
            explain_empty_axes(panel, "no final has finished")
        else:
            _draw(panel, table, styles, _wide(tables))
    return figure


def _wide(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Whether the axis of the setting is logarithmic: all values are positive and differ by a factor of 4 or more."""
    values = pd.concat([table["value"] for table in tables.values()])
    return bool(len(values) and values.min() > 0 and values.max() / values.min() >= 4)


def _counted(table: pd.DataFrame) -> str:
    """The number of finals behind each mean of a panel, as text; "" for an empty panel."""
    seeds = sorted(set(table["n"]))
    number = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}" if seeds else ""
    return f"n = {number} final seeds" if seeds else ""


def _styles(manifest: Manifest, found: list[Series]) -> dict[str, Line2D]:
    """The style of each series, by its title: no two have the same colour or marker."""
    styles = method_styles(manifest)
    shown = distinct([styles[one.labels[0]] for one in found])
    return {
        one.title: Line2D(
            [], [], color=style.colour, marker=style.marker, markersize=5, linewidth=1.1, markeredgecolor=PAPER,
            markeredgewidth=0.4, linestyle=LINES[position % len(LINES)], label=short(one.title),
        )
        for position, (one, style) in enumerate(zip(found, shown, strict=True))
    }  # fmt: skip


def _draw(axes: Axes, table: pd.DataFrame, styles: Mapping[str, Line2D], wide: bool) -> None:
    """Draw the series of one panel and set its axes; `wide`: the horizontal axis is logarithmic.

    Each series is moved a little to the side, so that intervals at the same value of the setting stand beside each other.
    """
    reach = _reach(table, wide)
    for position, (name, members) in enumerate(table.groupby("series", sort=False)):
        style, share = styles[str(name)], 0.012 * (position - (table["series"].nunique() - 1) / 2)
        moved = members.assign(value=members["value"] * reach**share if wide else members["value"] + reach * share)
        axes.add_line(_copied(style, moved))
        axes.vlines(moved["value"], moved["low"], moved["high"], color=style.get_color(), linewidth=0.7, alpha=0.6)
    values = sorted(set(table["value"]))
    if wide:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(
        *(
            (values[0] / reach**0.08, values[-1] * reach**0.08)
            if wide
            else (values[0] - 0.08 * reach, values[-1] + 0.08 * reach)
        )
    )
    means, margin = table["mean"], score_margin(table)
    low, high = table["low"].fillna(means).min(), table["high"].fillna(means).max()
    score_axis(axes, max(low, means.min() - margin), min(high, means.max() + margin), 5, True)


def _reach(table: pd.DataFrame, wide: bool) -> float:
    """The largest value of the setting divided by the smallest, or minus the smallest if the axis is not logarithmic."""
    low, high = float(table["value"].min()), float(table["value"].max())
    return high / low if wide else high - low


def short_number(value: float) -> str:
    """A number as short text: 1e-7 and not 1e-07 or 0.0000001.

    Eight powers of ten then fit below a panel that is a third as wide as the figure.
    """
    mantissa, _, exponent = (
        f"{value:g}".partition("e") if abs(value) >= 0.01 or not value else f"{value:.3e}".partition("e")
    )
    return f"{float(mantissa):g}e{int(exponent)}" if exponent else mantissa


def _copied(style: Line2D, members: pd.DataFrame) -> Line2D:
    """A line through the members' values and means, in this style."""
    line = Line2D(list(members["value"]), list(members["mean"]))
    line.update_from(style)
    return line
