"""What each layer's adapters are worth: finals scored with their method removed from spans of layers. Refers to the figures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.data.ablation_scores import Worth, worths
from reports.data.store import StoredSweep
from reports.plots.diverging import signed
from reports.render.markdown import Markup, bullets, escape, paragraphs, plural, points
from reports.render.table import Table
from reports.sections.efficiency import images
from reports.sections.section import Section, caption, removal_basis

HEADER = (
    *("Model", "Task", "Method", "Seeds", "Nothing removed", "One layer, mean", "One layer, worst"),
    *("All layers", "Seconds per final"),
)


def text(sweep: StoredSweep) -> str:
    if not worths(sweep):
        return ""
    shown = tables(sweep)
    return paragraphs(
        "## What each layer's adapters are worth",
        caption(removal_basis(sweep)),
        "Each final at its best epoch, scored again on the validation split with what its method trained in a span of layers "
        "removed; LayerNorms and head stay as trained, nothing is re-trained (Houlsby et al. 2019, figure 6). Changes in "
        "percent points, mean over the final seeds; layers are counted from 1, the lowest. The score with nothing removed is the "
        "best of its epochs on this very split, so losses are a little too large. The seconds are in no other table.",
        shown["ablation"].markdown() if shown else "",
        bullets(Markup(told) for told in _missing(sweep)),
        *images(sweep, "ablation"),
    )


def tables(sweep: StoredSweep) -> dict[str, Table]:
    manifest = sweep.manifest
    lines = [
        (
            manifest.models[cell.model].title,
            manifest.tasks[cell.task].title,
            manifest.methods[cell.method].title,
            *_numbers(worth),
        )
        for cell, worth in worths(sweep).items()
        if worth
    ]
    told = Markup(f"The method removed from layers without re-training. {removal_basis(sweep).caption}")
    return {"ablation": Table(header=HEADER, rows=lines, align="lllrrrrrr", caption=told)} if lines else {}


def rows(sweep: StoredSweep) -> pd.DataFrame | None:
    """One row per cell and span: model, task, method, first, last (from 1), score, change, change_std (n - 1), n."""
    if not worths(sweep):
        return None
    found = [
        (cell.model, cell.task, cell.method, first + 1, last + 1, *_span(worth, first, last))
        for cell, worth in worths(sweep).items()
        if worth
        for first in range(worth.layers)
        for last in range(first, worth.layers)
    ]
    names = ["model", "task", "method", "first", "last", "score", "change", "change_std", "n"]
    return pd.DataFrame(found, columns=names)


def _span(worth: Worth, first: int, last: int) -> tuple[float, float, float, int]:
    changes = worth.changes[:, first, last]
    n = len(changes)
    return worth.left[:, first, last].mean(), changes.mean(), changes.std(ddof=1) if n > 1 else math.nan, n


def _numbers(worth: Worth) -> tuple[str, ...]:
    alone = np.diag(worth.mean)
    worst = int(alone.argmin())
    return (
        str(len(worth.whole)),
        points(worth.whole.mean()),
        signed(alone.mean(), 2),
        f"{signed(alone[worst], 2)} (layer {worst + 1})",
        signed(worth.mean[0, -1], 2),
        f"{worth.seconds.mean():.1f}",
    )


def _missing(sweep: StoredSweep) -> list[str]:
    """Why rows or cells that were asked for have no numbers."""
    methods = sweep.manifest.methods
    rigid = dict.fromkeys(cell.method for cell in worths(sweep) if not methods[cell.method].removable)
    told = [
        f"{escape(methods[label].title)}: no map; zeros in parameters of its own do not remove this method."
        for label in rigid
    ]
    left = [cell for cell, worth in worths(sweep).items() if worth is None and cell.method not in rigid]
    named = escape("; ".join(map(str, left[:12])) + (f"; {len(left) - 12} more" if len(left) > 12 else ""))
    return told + ([f"{plural(len(left), 'cell')} without a final whose map was kept: {named}."] if left else [])


SECTION = Section(text=text, rows=rows, tables=tables, basis=removal_basis)
