"""Figures of the test score against a numeric setting in which rows of one method differ, such as bottleneck width or depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
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
from reports.plots.method_styles import family_style
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

_COLUMNS = ["series", "family", "label", "value", "mean", "low", "high", "n"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Rows of a space with the same method that differ in one numeric setting only.

    `labels` and `values` (of the setting) are in ascending order of the values. `title` names the method and its other settings.
    """

    title: str
    family: str
    setting: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


def series(manifest: Manifest) -> list[Series]:
    """Every series of the space, in the order in which the first row of each stands in the space."""
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for label, facts in manifest.methods.items():
        for setting, value in facts.fixed.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = tuple(sorted((k, v) for k, v in facts.fixed.items() if k != setting))
                groups[facts.name, setting, repr(others)].append(label)
    return [
        _series(manifest, str(key[1]), labels) for key, labels in groups.items() if _differ(manifest, key[1], labels)
    ]


def _differ(manifest: Manifest, setting: object, labels: list[str]) -> bool:
    """Whether these rows have more than one value of the setting."""
    return len({manifest.methods[label].fixed[str(setting)] for label in labels}) > 1


def _series(manifest: Manifest, setting: str, labels: list[str]) -> Series:
    ranked = sorted(labels, key=lambda label: float(manifest.methods[label].fixed[setting]))
    facts = manifest.methods[ranked[0]]
    others = {one: value for one, value in facts.fixed.items() if one != setting and _varies(manifest, facts.name, one)}
    other_settings = ", ".join(f"{one} {value}" for one, value in others.items())
    return Series(
        title=facts.kind + (f" ({other_settings})" if other_settings else ""),
        family=facts.family,
        setting=setting,
        labels=tuple(ranked),
        values=tuple(float(manifest.methods[label].fixed[setting]) for label in ranked),
    )


def _varies(manifest: Manifest, name: str, setting: str) -> bool:
    """Whether the rows of the method `name` have more than one value of the setting."""
    return len({facts.fixed.get(setting) for facts in manifest.methods.values() if facts.name == name}) > 1


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
    """The figure of one page: a panel per task, in it a line per series with the intervals of its means as a band."""
    manifest = sweep.manifest
    tables = {task: rows(sweep, page.model, task, setting) for task in page.tasks}
    styles = _styles([one for one in series(manifest) if one.setting == setting])
    grid = PanelGrid(columns=2 if len(tables) == 4 else min(len(tables), 3), height=1.9, gap_x=0.4, gap_y=0.25)
    title = title_of(manifest, page.model, f"Score against {short(setting)}")
    labels = (f"{short(setting)} (logarithmic)" if _wide(tables) else short(setting), "test score, percent points")
    note = "; ".join(part for part in (f"band: {sweep.interval_coverage}", note_of(sweep)) if part)
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


def _styles(found: list[Series]) -> dict[str, Line2D]:
    """The style of each series, by its title: colour and marker of its family of methods, and a line style within the family."""
    styles = {}
    for position, one in enumerate(found):
        index = [other.family for other in found[:position]].count(one.family)
        shown = family_style(one.family)
        styles[one.title] = Line2D(
            [], [], color=shown.colour, marker=shown.marker, markersize=4.5, linewidth=1.1,
            markeredgecolor=PAPER, markeredgewidth=0.4, linestyle=LINES[index % len(LINES)], label=short(one.title),
        )  # fmt: skip
    return styles


def _draw(axes: Axes, table: pd.DataFrame, styles: Mapping[str, Line2D], wide: bool) -> None:
    """Draw the series of one panel and set its axes; `wide`: the horizontal axis is logarithmic."""
    for name, members in table.groupby("series", sort=False):
        style = styles[str(name)]
        axes.add_line(_copied(style, members))
        axes.fill_between(
            members["value"], members["low"], members["high"], color=style.get_color(), alpha=0.12, linewidth=0
        )
    values = sorted(set(table["value"]))
    if wide:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    reach = values[-1] / values[0] if wide else values[-1] - values[0]
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
