"""Learning curves: validation score after each epoch, of every trial of the search and of every final."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.plots.canvas import GREY, INK, PALE
from reports.plots.cellgrid import CellGridSpec, cell_figures, draw_cells
from reports.plots.figure_pages import FigurePage, ReportFigure
from reports.plots.method_styles import method_styles
from reports.plots.tiles import Tile, linear_axis_scale
from reports.render.markdown import plural
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

COLUMNS = ["cell", "task", "run_id", "phase", "state", "epoch", "score"]
LEGEND = (
    Line2D([], [], color=PALE, linewidth=0.8, label="trial of the search"),
    Line2D(
        [],
        [],
        color=PALE,
        linewidth=0.8,
        marker="o",
        markeredgecolor=GREY,
        markerfacecolor=GREY,
        markersize=2.2,
        label="stopped by ASHA",
    ),
    Line2D([], [], color=INK, linewidth=1.4, label="final, one line per seed, in the colour of its method"),
)


def figures(sweep: AnalyzedSweep) -> list[ReportFigure]:
    """The figures of all pages, with a panel per cell."""
    return cell_figures(sweep, "curves", "Validation score per epoch", lambda page: partial(draw, sweep, page))


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per trial and epoch with a validation score (percent points); the rows of a trial are adjacent."""
    trials = sweep.trials[["run_id", "cell", "task", "phase", "state"]]
    return trials.merge(sweep.epochs, on="run_id", how="inner", sort=False).dropna(subset="score")[COLUMNS]


def draw(sweep: AnalyzedSweep, page: FigurePage) -> Figure:
    """The figure of one page: a panel per cell with the learning curves of its trials."""
    table = rows(sweep)
    last = max(int(table["epoch"].max()), 2) if len(table) else 2
    spec = CellGridSpec(
        title="Learning curves",
        labels=("epoch", "validation score, percent points"),
        legend=LEGEND,
        horizontal=linear_axis_scale(1 - 0.04 * last, last * 1.03, MaxNLocator(4, integer=True).tick_values(1, last)),
        counted=_counted,
        draw=partial(_draw, sweep),
    )
    limits = {task: _limits(table[table["task"] == task]) for task in page.tasks}
    return draw_cells(sweep, page, spec, table, limits)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """The lowest and the highest score shown of one task, percent points.

    The lowest one is the 20 % quantile, because first epochs are often far below the others; or, if that is lower, the smallest
    of the cells' best scores.
    """
    if table.empty:
        return 0.0, 1.0
    worst_cell = table.groupby("cell")["score"].max().min()
    return min(float(table["score"].quantile(0.2)), float(worst_cell)), float(table["score"].max())


def _counted(own: pd.DataFrame) -> str:
    """The numbers of search trials and of finals in a panel, as text."""
    number = own.groupby("phase")["run_id"].nunique()
    found = [plural(int(number.get("search", 0)), "trial"), plural(int(number.get("final", 0)), "final")]
    return ", ".join(text for text in found if not text.startswith("0 "))


def _draw(sweep: AnalyzedSweep, tile: Tile, cell: Cell, own: pd.DataFrame) -> None:
    """Draw one cell: search trials grey, with a mark where ASHA or a time budget stopped one; finals in colour."""
    search, finals = own[own["phase"] == "search"], own[own["phase"] == "final"]
    tile.plot(*_lines(search), color=PALE, linewidth=0.6, zorder=1.5)
    stopped = search[search["state"] == "STOPPED"].drop_duplicates("run_id", keep="last")
    tile.plot(stopped["epoch"], stopped["score"], linestyle="none", marker="o", color=GREY, markersize=1.7, zorder=2)
    colour = method_styles(sweep.manifest)[cell.method].colour
    tile.plot(*_lines(finals), color=colour, linewidth=1.1, zorder=3, solid_capstyle="round")


def _lines(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and scores of all trials with NaN between trials, to draw them as one interrupted line.

    The rows of a trial must be adjacent.
    """
    runs = table["run_id"].to_numpy()
    ends = np.flatnonzero(runs[1:] != runs[:-1]) + 1
    epochs, scores = (table[name].to_numpy(dtype=float) for name in ("epoch", "score"))
    return np.insert(epochs, ends, np.nan), np.insert(scores, ends, np.nan)
