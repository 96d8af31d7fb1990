"""Parameter efficiency: test score of each method's finals against the parameters that it trains, uses or stores.

Methods differ in colour and marker (`method_styles`), and each one's title is beside its mark. The Pareto front rises only where
a difference is significant, and is drawn only if it does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reports.data.cells import CellResult
from reports.plots import label_placement
from reports.plots.canvas import (
    FAINT,
    GREY,
    INK,
    MAGNITUDE,
    PAPER,
    SMALL,
    TEXT,
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
)  # fmt: skip
from reports.plots.figure_pages import FigurePage, ReportFigure, pages
from reports.plots.method_styles import STYLES, FamilyStyle, families_in, family_style, method_styles
from reports.plots.series import series
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

# The quantities of the horizontal axis, attributes of `CellCounts`, with their names for readers.
QUANTITIES = {
    "trained": "trained parameters",
    "active": "active parameters",
    "stored": "stored parameters, as 32-bit numbers",
}
FEW = 8  # methods whose names still fit into half the width of a figure


def figures(sweep: AnalyzedSweep) -> list[ReportFigure]:
    """With up to `FEW` methods one figure per model, with up to six panels, one per task; else one figure per model and task.

    Each over the trained parameters, and over active and stored ones if these differ from the trained ones in any cell.
    """
    manifest = sweep.manifest
    return [
        ReportFigure(
            name=page.name,
            alt=f"Test scores on {manifest.models[page.model].title} against {QUANTITIES[quantity]}",
            draw=partial(draw, sweep, page, quantity),
        )
        for quantity in QUANTITIES
        if quantity == "trained" or _differs(sweep, quantity)
        for page in pages(manifest, _kind(quantity), 6 if len(manifest.methods) <= FEW else 1)
    ]


def _kind(quantity: str) -> str:
    """The first part of the names of figures over this quantity."""
    return "efficiency" if quantity == "trained" else f"efficiency_{quantity}"


def _differs(sweep: AnalyzedSweep, quantity: str) -> bool:
    """Whether any cell has another number of this quantity than of trained parameters."""
    counts = [result.counts for result in sweep.results.values() if result.counts]
    return any(getattr(one, quantity) not in (None, one.trained) for one in counts)


def rows(sweep: AnalyzedSweep, model: str, task: str, quantity: str = "trained") -> pd.DataFrame:
    """One row per method that has a score and a known number of parameters, in the order of the manifest.

    Columns: method, title, family, size (a key of `QUANTITIES`, in parameters), mean over the finals and its interval low, high
    (percent points on the test split; NaN without an interval), n and planned (finals), front (whether the Pareto front runs
    through the method).
    """
    cells = [sweep.results[Cell(model=model, task=task, method=label)] for label in sweep.manifest.methods]
    shown = [result for result in cells if result.mean is not None and _size(result, quantity) > 0]
    found = pd.DataFrame([_row(sweep, result, quantity) for result in shown], columns=_COLUMNS)
    judged = found[found["low"].notna()]
    members = front(
        list(judged["method"]),
        list(judged["size"]),
        list(judged["mean"]),
        sweep.columns[model, task].significant_pairs,
    )
    return found.assign(front=found["method"].isin(members))


def _size(result: CellResult, quantity: str) -> float:
    """The number of parameters of a cell; 0 if it is not known."""
    return getattr(result.counts, quantity, None) or 0


_COLUMNS = ["method", "title", "family", "size", "mean", "low", "high", "n", "planned"]


def front(
    methods: Sequence[str], sizes: Sequence[float], means: Sequence[float], above: Collection[tuple[str, str]]
) -> list[str]:
    """The methods that the Pareto front runs through, in ascending order of their sizes (parameters).

    `above`: pairs of methods, the first significantly better than the second. The front starts at the smallest method and
    rises only to a method that is significantly better than the last one on it. Without a significant difference there is
    no evidence that more parameters give a better score.
    """
    found: list[str] = []
    for _, _, method in sorted(zip(sizes, (-mean for mean in means), methods, strict=True)):
        if not found or (method, found[-1]) in above:
            found.append(method)
    return found


def _row(sweep: AnalyzedSweep, result: CellResult, quantity: str) -> tuple[object, ...]:
    """The values of `_COLUMNS` for one cell."""
    facts = sweep.manifest.methods[result.cell.method]
    interval = sweep.standings[result.cell].interval or (float("nan"), float("nan"))
    numbers = (_size(result, quantity), result.mean, *interval, len(result.scores), result.planned)
    return result.cell.method, facts.title, facts.family, *numbers


def draw(sweep: AnalyzedSweep, page: FigurePage, quantity: str = "trained") -> Figure:
    """The figure of one page: a panel per task with one mark per method; `quantity`: that of the horizontal axis."""
    manifest = sweep.manifest
    tables = {task: rows(sweep, page.model, task, quantity) for task in page.tasks}
    grid = _grid(len(page.tasks), len(manifest.methods))
    title = title_of(manifest, page.model, "Parameter efficiency")
    axis_labels = (f"{QUANTITIES[quantity]} (logarithmic)", "test score, percent points")
    figure, axes = figure_with_axes(title, note_of(sweep), len(tables), grid, _legend(sweep, tables), axis_labels)
    sizes = pd.concat([table["size"] for table in tables.values()])
    for panel, (task, table) in zip(axes, tables.items(), strict=True):
        facts = manifest.tasks[task]
        title_panel(
            figure,
            position_of(panel),
            f"{short(facts.title)} ({facts.score_title})",
            _counted(table, len(manifest.methods)),
        )
        if table.empty:
            explain_empty_axes(panel, "no final has finished")
            continue
        _scale(panel, table, sizes)
        _draw_front(panel, table)
        lines = _draw_series(panel, sweep, table)
        _draw_methods(panel, table, method_styles(manifest))
        _label(panel, table, lines, method_styles(manifest))
    return figure


def _grid(num_tasks: int, num_methods: int) -> PanelGrid:
    """One high panel for a single task, higher for many methods; else two panels beside each other."""
    if num_tasks == 1:
        return PanelGrid(columns=1, height=3.0 if num_methods <= FEW else 4.6)
    return PanelGrid(columns=2, height=2.3, gap_x=0.45, gap_y=0.25)


def _counted(table: pd.DataFrame, num_methods: int) -> str:
    """The number of finals per method, and how many methods have none."""
    if table.empty:
        return ""
    planned = int(table["planned"].max())
    finals = f"n = {planned} final {'seed' if planned == 1 else 'seeds'} per method"
    missing = num_methods - len(table)
    return f"{finals}; {missing} of {num_methods} methods without a result" if missing else finals


def _scale(axes: Axes, table: pd.DataFrame, sizes: pd.Series) -> None:
    """Set both axes of a panel; `sizes`: parameters of all methods in the figure, whose panels have the same x limits.

    All means are inside the panel; intervals of few seeds may extend beyond it.
    """
    low, high = float(sizes.min()), float(sizes.max())
    reach = max(high / low, 10.0)
    axes.set_xscale("log")
    axes.set_xlim(low / reach**0.12, high * reach**0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if reach > 30 else (1.0, 3.0)))
    axes.xaxis.set_major_formatter(MAGNITUDE)
    axes.xaxis.set_minor_locator(NullLocator())
    means, margin = table["mean"], score_margin(table)
    lowest = max(float(table["low"].fillna(means).min()), means.min() - margin)
    highest = min(float(table["high"].fillna(means).max()), means.max() + margin)
    score_axis(axes, min(lowest, means.min()) - 0.15 * margin, max(highest, means.max()) + 0.15 * margin, 6, True)


def _draw_front(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the Pareto front as a dashed staircase, with the interval of the method at each step as a grey band."""
    members = table[table["front"]].sort_values("size")
    if len(members) < 2:
        return
    right = axes.get_xlim()[1]
    x = [*members["size"], right]
    for name, style in (("low", None), ("mean", "-")):
        values = [*members[name], members[name].iloc[-1]]
        if style:
            axes.step(x, values, where="post", color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.2)
        else:
            tops = [*members["high"], members["high"].iloc[-1]]
            axes.fill_between(x, values, tops, step="post", color=FAINT, linewidth=0, zorder=0.4)


def _draw_series(axes: Axes, sweep: AnalyzedSweep, table: pd.DataFrame) -> list[np.ndarray]:
    """Draw a thin line through the means of rows of one method that differ only in one numeric setting.

    Returns the corners of each line: [N, 2], trained parameters and score of N rows, in data units.
    """
    by_method = table.set_index("method")
    drawn, styles = [], method_styles(sweep.manifest)
    for one in series(sweep.manifest):
        members = by_method.loc[[label for label in one.labels if label in by_method.index]].sort_values("size")
        if len(members) > 1:
            axes.plot(members["size"], members["mean"], color=styles[one.labels[0]].colour, linewidth=0.7, zorder=1.4)
            drawn.append(members[["size", "mean"]].to_numpy())
    return drawn


def _draw_methods(axes: Axes, table: pd.DataFrame, styles: Mapping[str, FamilyStyle]) -> None:
    """Draw each method's mean as a mark, and its interval as a vertical line; without an interval the mark is hollow."""
    for row in table.itertuples():
        style = styles[row.method]
        if row.low == row.low:
            axes.vlines(row.size, row.low, row.high, color=style.colour, linewidth=0.6, alpha=0.55, zorder=1.6)
        axes.plot(
            row.size, row.mean, style.marker, color=style.colour, zorder=2 + bool(row.front),
            markersize=6.5 if style.marker in "*P" else 5.5, markeredgecolor=PAPER, markeredgewidth=0.4,
            markerfacecolor=style.colour if row.low == row.low else PAPER,
        )  # fmt: skip
        if row.low != row.low:
            axes.lines[-1].set_markeredgecolor(style.colour)


def _legend(sweep: AnalyzedSweep, tables: Mapping[str, pd.DataFrame]) -> list[Line2D]:
    """Legend entries: what the panels of these tables contain, and the families of methods where colours stand for them."""
    drawn = pd.concat(tables.values())
    marks = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=family_style(name).marker,
            color=family_style(name).colour,
            markersize=5,
            label=name or "other",
        )
        for name in (families_in(sweep.manifest) if len(sweep.manifest.methods) > len(STYLES) else ())
    ]
    if drawn["low"].notna().any():
        marks.append(
            Line2D([], [], marker="|", linestyle="none", color=GREY, markersize=8, label=sweep.interval_coverage)
        )
    if drawn["low"].isna().any():
        hollow = {"marker": "o", "linestyle": "none", "color": GREY, "markerfacecolor": PAPER, "markersize": 5}
        marks.append(Line2D([], [], label="hollow: one final, no interval", **hollow))  # type: ignore[arg-type]
    if any(table["front"].sum() > 1 for table in tables.values()):
        marks.append(
            Line2D(
                [],
                [],
                color=INK,
                linewidth=0.9,
                linestyle=(0, (4, 2)),
                label="Pareto front: rises where a difference is significant",
            )
        )
    return marks


def _label(axes: Axes, table: pd.DataFrame, lines: Sequence[np.ndarray], styles: Mapping[str, FamilyStyle]) -> None:
    """Write each method's title beside its mark, where it covers neither marks nor lines.

    The number of finals is added if it differs from the planned one. `lines`: the result of `_draw_series`.
    """
    scale = axes.figure.dpi / 72
    bottom, top = axes.get_window_extent().y0, axes.get_window_extent().y1
    taken, bars, marks = [], [], []
    for row in table.itertuples():
        x, y = axes.transData.transform((row.size, row.mean))
        taken.append((x - 3.2 * scale, y - 3.2 * scale, x + 3.2 * scale, y + 3.2 * scale))
        if row.low == row.low:
            low, high = (axes.transData.transform((row.size, end))[1] for end in (row.low, row.high))
            bars.append((x - scale, max(low, bottom), x + scale, min(high, top)))
        seeds = f" (n = {row.n})" if row.n != row.planned else ""
        marks.append(
            label_placement.LabelledPoint(
                x=row.size, y=row.mean, text=short(row.title, 28) + seeds, colour=styles[row.method].colour
            )
        )
    taken += _front_boxes(axes, table, 0.6 * scale)
    taken += [box for corners in lines for box in _line_boxes(axes.transData.transform(corners), 3 * scale)]
    label_placement.annotate(axes, marks, taken, bars, SMALL if len(marks) > 12 else TEXT)


def _line_boxes(corners: np.ndarray, half: float) -> list[label_placement.Box]:
    """Square boxes that cover the line through `corners` [N, 2]; `half` is half their side. All in pixels."""
    found = []
    for start, end in pairwise(corners):
        number = max(2, round(float(np.hypot(*(end - start))) / (2 * half)))
        found += [(x - half, y - half, x + half, y + half) for x, y in np.linspace(start, end, number)]
    return found


def _front_boxes(axes: Axes, table: pd.DataFrame, half: float) -> list[label_placement.Box]:
    """Thin boxes that cover the staircase of `_draw_front`; `half` is half their thickness. In pixels."""
    members = table[table["front"]].sort_values("size")
    corners = axes.transData.transform(members[["size", "mean"]].to_numpy())
    right = axes.get_window_extent().x1
    ends = [*corners[1:, 0], right][: len(corners)]
    flat = [(x, y - half, end, y + half) for (x, y), end in zip(corners, ends, strict=True)]
    rises = [(x - half, low, x + half, y) for (x, y), (_, low) in zip(corners[1:], corners[:-1], strict=True)]
    return flat + rises
