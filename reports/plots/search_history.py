"""Scores of the search by learning rate, per cell, with the winner and the ends of the searched range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWN

from reports.data.trial_table import PARAM
from reports.plots.canvas import FAINT, GREY, INK, PAPER
from reports.plots.cellgrid import CellGridSpec, cell_figures, draw_cells
from reports.plots.figure_pages import FigurePage, ReportFigure
from reports.plots.tiles import AxisScale, Tile
from reports.render.markdown import plural
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.edges import as_number
from search_spaces.language import Cell, Choice, Dimension, Range

COLUMNS = ["cell", "task", "trial", "lr", "batch_size", "score", "stopped", "winner"]
# Marker and colour of each batch size, in ascending order; they repeat if a space has more than six sizes.
_BATCH_STYLES = (
    ("o", "#0072b2"),
    ("^", "#c04f00"),
    ("s", "#00805c"),
    ("D", "#b5409a"),
    ("v", "#8a7400"),
    ("P", "#4b3a8f"),
)
_BELOW = CARETDOWN


def figures(sweep: AnalyzedSweep) -> list[ReportFigure]:
    """The figures of all pages; none if every cell has a single configuration."""
    if not sweep.manifest.searches:
        return []
    return cell_figures(sweep, "search", "Validation score per learning rate", lambda page: partial(draw, sweep, page))


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per search trial with a learning rate and a score: cell, task, trial, lr, batch_size, score, stopped, winner.

    batch_size: NaN if the trial has none. score: of the best epoch on the validation split, percent points. stopped: by ASHA
    or a time budget. winner: whether the trial belongs to the configuration that won its cell.
    """
    trials = sweep.trials
    found = trials[(trials["phase"] == "search") & trials["state"].isin(("DONE", "STOPPED"))]
    table = pd.DataFrame(
        {
            **{name: found[name] for name in ("cell", "task", "trial")},
            "lr": _numbers(found, "lr"),
            "batch_size": _numbers(found, "batch_size"),
            "score": found["best_score"],
            "stopped": found["state"] == "STOPPED",
            "winner": found["trial"].isin(sweep.winning_trials),
        },
        columns=COLUMNS,
    )
    return table[(table["lr"] > 0) & table["score"].notna()]


def _numbers(trials: pd.DataFrame, name: str) -> pd.Series:
    """The trials' values of the hyperparameter `name` as floats; NaN for trials without it."""
    values = trials[PARAM + name] if PARAM + name in trials else pd.Series(math.nan, index=trials.index)
    # to_numeric leaves an empty column of texts as it is, astype does not.
    return pd.to_numeric(values, errors="coerce").astype(float)


def draw(sweep: AnalyzedSweep, page: FigurePage) -> Figure:
    """The figure of one page: a panel per cell with the score of each search trial at its learning rate."""
    table = rows(sweep)
    batches = sorted(table["batch_size"].dropna().unique())
    limits = {task: _limits(table[table["task"] == task]) for task in page.tasks}
    spec = CellGridSpec(
        title="The search",
        labels=("learning rate (logarithmic)", "best validation score, percent points"),
        legend=_legend(batches),
        horizontal=_scale(*_span(sweep, table)),
        counted=_counted,
        draw=partial(_draw, sweep),
    )
    return draw_cells(sweep, page, spec, _placed(table, batches, limits, _step(spec.horizontal)), limits)


def _step(scale: AxisScale) -> float:
    """Factor between the x of trials with the same learning rate and consecutive batch sizes, to draw them side by side."""
    return (scale.high / scale.low) ** 0.03


def _placed(
    table: pd.DataFrame, batches: Sequence[float], limits: Mapping[str, tuple[float, float]], step: float
) -> pd.DataFrame:
    """The rows with columns that say where to draw each trial.

    x, y: data units. low: whether the score is below the panel, so that its mark is drawn at the lower edge. batch_index:
    position of the batch size in `batches`. margin: factor between an end of the searched range and the edge of the shaded area.
    `limits`: per task the lowest and the highest score shown. `step`: see `_step`.
    """
    index = table["batch_size"].map({size: i for i, size in enumerate(batches)}).fillna(0).astype(int)
    floor = table["task"].map({task: low for task, (low, _) in limits.items()}).astype(float)
    x = table["lr"] * step ** (index - (len(batches) - 1) / 2)
    return table.assign(
        batch_index=index,
        x=x,
        y=table["score"].clip(lower=floor),
        low=table["score"] < floor,
        margin=step ** (1 + len(batches) / 2),
    )


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """The lowest and the highest score shown of one task, percent points.

    The lowest one is the 10 % quantile or, if that is lower, the smallest of the cells' best scores. Marks of trials with lower
    scores are drawn at the lower edge.
    """
    if table.empty:
        return 0.0, 1.0
    worst_cell = table.groupby("cell")["score"].max().min()
    return min(float(table["score"].quantile(0.1)), float(worst_cell)), float(table["score"].max())


def _counted(own: pd.DataFrame) -> str:
    """The numbers of trials and of stopped trials in a panel, as text."""
    stopped = int(own["stopped"].sum())
    return plural(len(own), "trial") + (f", {stopped} stopped" if stopped else "")


def _span(sweep: AnalyzedSweep, table: pd.DataFrame) -> tuple[float, float]:
    """Limits of the axis that contain all learning rates searched or tried, with a margin.

    They differ by more than a factor of 10, so that there is a power of ten between them for a tick.
    """
    bounds = [bound for facts in sweep.manifest.methods.values() for bound in _range(facts.searched.get("lr"))]
    rates = [*bounds, *table["lr"]] or [1e-5, 1e-3]
    ratio = max(rates) / min(rates)
    reach = max(ratio**0.1, (10.1 / ratio) ** 0.5)
    return min(rates) / reach, max(rates) * reach


def _range(dimension: Dimension | None) -> list[float]:
    """The lowest and the highest value that the search could choose; [] if the hyperparameter was not searched."""
    if isinstance(dimension, Range):
        return [dimension.low, dimension.high]
    values = [as_number(value) for value in dimension.values] if isinstance(dimension, Choice) else []
    numbers = [value for value in values if value is not None and value > 0]
    return [min(numbers), max(numbers)] if numbers else []


def _scale(low: float, high: float) -> AxisScale:
    """A logarithmic axis with ticks at up to four powers of ten, so that their texts fit below a panel."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = tuple((10.0**p, f"1e{p}") for p in powers[:: max(1, -(-len(powers) // 4))])
    return AxisScale(low=low, high=high, log=True, ticks=ticks)


def _draw(sweep: AnalyzedSweep, tile: Tile, cell: Cell, own: pd.DataFrame) -> None:
    """Draw one cell: the ends of the searched range, a mark per trial, and a ring around the winner."""
    _draw_ends(tile, _range(sweep.manifest.methods[cell.method].searched.get("lr")), own["margin"].iloc[0])
    for (index, stopped, low), points in own.groupby(["batch_index", "stopped", "low"]):
        marker, colour = _BATCH_STYLES[index % len(_BATCH_STYLES)]
        tile.plot(
            points["x"], points["y"], linestyle="none", marker=_BELOW if low else marker, color=colour, markersize=4,
            markerfacecolor=PAPER if stopped and not low else colour, markeredgewidth=0.6, zorder=2, cut=False,
        )  # fmt: skip
    won, ring = own[own["winner"]], {"marker": "o", "markersize": 8.5, "markerfacecolor": "none", "zorder": 3}
    tile.plot(won["x"], won["y"], color=INK, markeredgewidth=0.8, linestyle="none", cut=False, **ring)


def _draw_ends(tile: Tile, ends: Sequence[float], margin: float) -> None:
    """Shade learning rates below and above the searched range; `ends`: its two ends, [] if the rate was not searched."""
    if ends:
        for outer, end in zip((tile.x.low, tile.x.high), (ends[0] / margin, ends[1] * margin), strict=True):
            tile.shade_span(outer, end, FAINT)
            tile.plot(
                [end, end], [tile.y.low, tile.y.high], color=GREY, linewidth=0.5, linestyle=(0, (3, 2)), zorder=0.4
            )


def _legend(batches: Sequence[float]) -> list[Line2D]:
    plain = {"linestyle": "none", "markersize": 4.5}
    marks = [
        Line2D([], [], marker=marker, color=colour, label=f"batch size {size:g}", **plain)  # type: ignore[arg-type]
        for size, (marker, colour) in zip(
            batches, _BATCH_STYLES * (len(batches) // len(_BATCH_STYLES) + 1), strict=False
        )
    ]
    ring = {"linestyle": "none", "marker": "o", "markerfacecolor": "none", "color": INK}
    edge = {"linestyle": (0, (3, 2)), "linewidth": 0.7, "color": GREY}
    return [
        *marks,
        Line2D([], [], markersize=4.5, label="hollow: stopped", **{**ring, "color": GREY}),  # type: ignore[arg-type]
        Line2D([], [], markersize=8, label="winner", **ring),  # type: ignore[arg-type]
        Line2D([], [], label="end of the range", **edge),  # type: ignore[arg-type]
        Line2D([], [], marker=_BELOW, color=GREY, label="below the axis", **plain),  # type: ignore[arg-type]
    ]
