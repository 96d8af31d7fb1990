"""Figures with one small panel per cell: learning curves, and scores of the search by learning rate.

All panels have the same horizontal axis, the panels of one task also the same vertical axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.plots.canvas import PanelGrid, blank_figure, explain_empty_panel, note_of, short, title_of, title_panel
from reports.plots.figure_pages import FigurePage, ReportFigure, pages
from reports.plots.method_styles import methods_by_family
from reports.plots.tiles import AxisScale, Tile, overlay_axes, score_axis_scale
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

FEW = 5  # the most methods that fit beside each other, so that each row of panels is one task
COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class CellGridSpec:
    """Settings of a figure with one panel per cell.

    labels: texts of the horizontal and the vertical axis. horizontal: the horizontal axis of all panels. counted: returns the
    number of trials in a panel as text, from the cell's rows. draw: draws a cell's rows into its panel.
    """

    title: str
    labels: tuple[str, str]
    legend: Sequence[Line2D]
    horizontal: AxisScale
    counted: Callable[[pd.DataFrame], str]
    draw: Callable[[Tile, Cell, pd.DataFrame], None]


def cell_pages(sweep: AnalyzedSweep, kind: str) -> list[FigurePage]:
    """The pages of such a figure: with up to `FEW` methods six tasks per page, each a row of panels; else one task per page."""
    return pages(sweep.manifest, kind, 6 if len(sweep.manifest.methods) <= FEW else 1)


def draw_cells(
    sweep: AnalyzedSweep,
    page: FigurePage,
    spec: CellGridSpec,
    table: pd.DataFrame,
    limits: Mapping[str, tuple[float, float]],
) -> Figure:
    """The figure of one page; a cell without rows gets its progress as text.

    `table`: the rows of all cells (column `cell`). `limits`: per task the lowest and the highest score that its panels show.
    """
    manifest = sweep.manifest
    order = methods_by_family(sweep, page.model)
    columns = len(order) if len(order) <= FEW else COLUMNS
    cells = [Cell(model=page.model, task=task, method=label) for task in page.tasks for label in order]
    grid = PanelGrid(
        columns=columns, height=1.75 if len(cells) <= columns else 1.15 if columns <= 4 else 0.85, gap_y=0.13
    )
    title = title_of(manifest, page.model, spec.title) + _only_task(sweep, page)
    figure, rectangles = blank_figure(title, note_of(sweep), len(cells), grid, spec.legend, spec.labels)
    axes = overlay_axes(figure)
    groups = {str(name): rows for name, rows in table.groupby("cell", sort=False)}
    scales = {task: score_axis_scale(*limits[task]) for task in page.tasks}
    for position, (rectangle, cell) in enumerate(zip(rectangles, cells, strict=True)):
        own = groups.get(str(cell))
        where = f"{short(manifest.tasks[cell.task].title)}: " if len(page.tasks) > 1 else ""
        name = where + short(manifest.methods[cell.method].title)
        title_panel(figure, rectangle, name, "" if own is None else spec.counted(own))
        tile = Tile(axes=axes, rectangle=rectangle, x=spec.horizontal, y=scales[cell.task])
        tile.draw_axes(numbered_left=position % columns == 0, numbered_below=position + columns >= len(cells))
        if own is None:
            explain_empty_panel(figure, rectangle, sweep.results[cell].progress)
        else:
            spec.draw(tile, cell, own)
    return figure


def _only_task(sweep: AnalyzedSweep, page: FigurePage) -> str:
    """The task and its metric, to be added to the figure's title, if the page has only one task; else ""."""
    facts = sweep.manifest.tasks[page.tasks[0]]
    return f", {short(facts.title)} ({facts.score_title})" if len(page.tasks) == 1 else ""


def cell_figures(
    sweep: AnalyzedSweep, kind: str, alt: str, draw: Callable[[FigurePage], Callable[[], Figure]]
) -> list[ReportFigure]:
    """One figure per page. `alt` starts its description; `draw` returns the function that draws a given page."""
    return [
        ReportFigure(name=page.name, alt=f"{alt} on {sweep.manifest.models[page.model].title}", draw=draw(page))
        for page in cell_pages(sweep, kind)
    ]
