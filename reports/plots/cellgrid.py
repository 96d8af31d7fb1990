"""A grid with one small panel per cell, for figures that show what happened inside each: learning curves, the search.

Panels of one task share their vertical axis, all panels their horizontal one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.plots.canvas import Frame, empty, head, note_of, paper, short, title_of
from reports.plots.figure_pages import Page, Sheet, pages
from reports.plots.method_styles import ordered
from reports.plots.tiles import Scale, Tile, board, score_scale
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

FEW = 5  # methods that fit beside each other, so that a row can be a task
COLUMNS = 6


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What tells one figure of cells from another: its words, its horizontal axis, and how a tile is drawn from a cell's rows.

    `counted` says how many trials the tile shows.
    """

    title: str
    labels: tuple[str, str]
    legend: Sequence[Line2D]
    horizontal: Scale
    counted: Callable[[pd.DataFrame], str]
    draw: Callable[[Tile, Cell, pd.DataFrame], None]


def cell_pages(sweep: AnalyzedSweep, kind: str) -> list[Page]:
    """Few methods: rows of tasks, six to a sheet. Many: a sheet per task."""
    return pages(sweep.manifest, kind, 6 if len(sweep.manifest.methods) <= FEW else 1)


def draw_cells(
    sweep: AnalyzedSweep,
    page: Page,
    kind: Kind,
    table: pd.DataFrame,
    limits: Mapping[str, tuple[float, float]],
) -> Figure:
    """The page's figure; `table` holds the rows of all cells (column `cell`), `limits` the scores shown of each task."""
    manifest = sweep.manifest
    order = ordered(sweep, page.model)
    columns = len(order) if len(order) <= FEW else COLUMNS
    cells = [Cell(model=page.model, task=task, method=label) for task in page.tasks for label in order]
    frame = Frame(columns=columns, height=1.75 if len(cells) <= columns else 1.15 if columns <= 4 else 0.85, gap_y=0.13)
    title = title_of(manifest, page.model, kind.title) + _only_task(sweep, page)
    figure, places = paper(title, note_of(sweep), len(cells), frame, kind.legend, kind.labels)
    axes = board(figure)
    groups = {str(name): rows for name, rows in table.groupby("cell", sort=False)}
    scales = {task: score_scale(*limits[task]) for task in page.tasks}
    for position, (place, cell) in enumerate(zip(places, cells, strict=True)):
        own = groups.get(str(cell))
        where = f"{short(manifest.tasks[cell.task].title)}: " if len(page.tasks) > 1 else ""
        name = where + short(manifest.methods[cell.method].title)
        head(figure, place, name, "" if own is None else kind.counted(own))
        tile = Tile(axes=axes, place=place, x=kind.horizontal, y=scales[cell.task])
        tile.frame(numbered_left=position % columns == 0, numbered_below=position + columns >= len(cells))
        if own is None:
            empty(figure, place, sweep.results[cell].progress)
        else:
            kind.draw(tile, cell, own)
    return figure


def _only_task(sweep: AnalyzedSweep, page: Page) -> str:
    facts = sweep.manifest.tasks[page.tasks[0]]
    return f", {short(facts.title)} ({facts.score})" if len(page.tasks) == 1 else ""


def sheets_of(sweep: AnalyzedSweep, kind: str, alt: str, draw: Callable[[Page], Callable[[], Figure]]) -> list[Sheet]:
    return [
        Sheet(name=page.name, alt=f"{alt} on {sweep.manifest.models[page.model].title}", draw=draw(page))
        for page in cell_pages(sweep, kind)
    ]
