"""Heat map of an ablation: change of the validation score with a span of layers removed, after Houlsby et al. 2019, figure 6."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle as Patch

from reports.data.ablation_scores import AblationScores
from reports.plots.canvas import (
    FAINT,
    GREY,
    SMALL,
    PanelGrid,
    Rectangle,
    blank_figure,
    explain_empty_panel,
    note_of,
    short,
    title_of,
    title_panel,
    write,
)
from reports.plots.diverging import GAINS, LOSSES, NOTHING, colour_of, signed, step_for
from reports.plots.figure_pages import FigurePage, ReportFigure, file_name, pages
from reports.plots.tiles import overlay_axes
from reports.render.markdown import plural, points
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

NUMBERED = 12  # up to this number of layers, every square shows its change as a number
# Inches: height of a square with a number, of one without, and least height of a panel.
ROW, NARROW_ROW, LEAST = 0.17, 0.11, 1.0
TASKS = 6  # per page


def figures(sweep: AnalyzedSweep) -> list[ReportFigure]:
    """One figure per model and row of the space with `ablated` whose method can be removed; up to six panels, one per task."""
    asked = [label for label, facts in sweep.manifest.methods.items() if facts.ablated and facts.removable]
    return [
        ReportFigure(
            name=page.name,
            alt=f"Change of the validation score on {sweep.manifest.models[page.model].title} when "
            f"{sweep.manifest.methods[label].title} is removed from a span of layers",
            draw=partial(draw, sweep, page, label),
        )
        for label in asked
        for page in pages(sweep.manifest, f"ablation_{file_name(label)}", TASKS)
    ]


def draw(sweep: AnalyzedSweep, page: FigurePage, label: str) -> Figure:
    """The figure of one page for the method `label`; a cell without an ablation gets its progress as text."""
    manifest = sweep.manifest
    cells = [Cell(model=page.model, task=task, method=label) for task in page.tasks]
    found = [sweep.ablation_scores[cell] for cell in cells]
    layers = max((one.layers for one in found if one), default=NUMBERED)
    step = step_for(max((np.nanmax(np.abs(one.mean)) for one in found if one), default=0.0))
    height = max(LEAST, layers * (ROW if layers <= NUMBERED else NARROW_ROW))
    grid = PanelGrid(columns=min(2, len(cells)), height=height, gap_x=0.4, gap_y=0.25)
    title = f"{short(manifest.methods[label].title)} removed from layers, not re-trained"
    notes = ("colour and number: mean change of the validation score, percent points", note_of(sweep))
    note = "; ".join(part for part in notes if part)
    labels = ("last layer removed", "first layer removed")
    figure, rectangles = blank_figure(
        title_of(manifest, page.model, title), note, len(cells), grid, _legend(step), labels
    )
    axes = overlay_axes(figure)
    for rectangle, cell, one in zip(rectangles, cells, found, strict=True):
        facts = manifest.tasks[cell.task]
        title_panel(
            figure, rectangle, f"{short(facts.title)} ({(one and one.metric) or facts.score_title})", _counted(one)
        )
        if one:
            _draw(figure, axes, rectangle, one.mean, step)
        else:
            explain_empty_panel(figure, rectangle, sweep.results[cell].progress)
    return figure


def _counted(scores: AblationScores | None) -> str:
    """The number of finals and their mean score with nothing removed, as text; "" without scores."""
    if scores is None:
        return ""
    return f"n = {plural(len(scores.full), 'final seed')}, nothing removed: {points(scores.full.mean())}"


def _legend(step: float) -> list[Line2D]:
    """Legend entries: a square for each colour with its change in percent points; adjacent colours differ by `step`."""
    style = {"linestyle": "none", "marker": "s", "markersize": 6.5, "markeredgecolor": GREY, "markeredgewidth": 0.4}
    shades = [*reversed(LOSSES), NOTHING, *GAINS]
    numbers = [step * (position - len(LOSSES)) for position in range(len(shades))]
    digits = 1 if step < 1 else 0
    return [
        Line2D([], [], color=one.colour, label=signed(number, digits), **style)  # type: ignore[arg-type]
        for one, number in zip(shades, numbers, strict=True)
    ]


def _draw(figure: Figure, axes: Axes, rectangle: Rectangle, changes: np.ndarray, step: float) -> None:
    """Draw a square for each span in `changes` [L, L] (first and last of L layers, percent points), layer 1 in the top row.

    With up to `NUMBERED` layers each square shows its number, else gains show "+", because in grey they look like losses.
    """
    left, bottom, width, height = rectangle
    layers = len(changes)
    across, down = width / layers, height / layers
    for first in range(layers):
        for last in range(first, layers):
            x, y, change = left + last * across, bottom + height - (first + 1) * down, float(changes[first, last])
            one = colour_of(change, step)
            axes.add_artist(Patch((x, y), across, down, facecolor=one.colour, edgecolor=FAINT, linewidth=0.5))
            text = _number(change) if layers <= NUMBERED else "+" if one in GAINS else ""
            if text:
                middle = {"ha": "center", "va": "center_baseline"}
                write(figure, x + across / 2, y + down / 2, text, SMALL, one.ink, **middle)
    _count(figure, rectangle, layers)
    axes.add_artist(Line2D([left, left + width], [bottom, bottom], color=GREY, linewidth=0.5))
    axes.add_artist(Line2D([left, left], [bottom, bottom + height], color=GREY, linewidth=0.5))


def _number(change: float) -> str:
    """A change as text of one or two digits and a sign: −0.3, −9.7, −12."""
    return signed(change, 1 if abs(change) < 9.95 else 0)


def _count(figure: Figure, rectangle: Rectangle, layers: int) -> None:
    """Write the numbers of the layers to the left of and below the squares; 1 is the lowest layer of the encoder."""
    left, bottom, width, height = rectangle
    for layer in _shown(layers):
        share = (layer - 0.5) / layers
        write(figure, left - 0.06, bottom + height * (1 - share), str(layer), SMALL, ha="right", va="center_baseline")
        write(figure, left + width * share, bottom - 0.05, str(layer), SMALL, ha="center", va="top")


def _shown(layers: int) -> Sequence[int]:
    """The layers whose number is written: all of up to twelve; of more, every second, every third and so on."""
    every = -(-layers // NUMBERED)
    return range(every, layers + 1, every) if every > 1 else range(1, layers + 1)
