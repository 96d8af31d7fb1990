"""Ablation: validation scores of finals after their method was removed from spans of layers, as a table and figures.

A span is any run of consecutive layers. Only rows of the space with `ablated` take part.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports.data.ablation_scores import AblationScores
from reports.plots.diverging import signed
from reports.render.markdown import Markup, bullets, escape, paragraphs, plural, points
from reports.render.table import Table
from reports.sections.efficiency import images
from reports.sections.section import Section, ablation_provenance
from reports.statistics.analysis import AnalyzedSweep

HEADER = (
    *("Model", "Task", "Method", "Seeds", "Nothing removed", "One layer, mean", "One layer, worst"),
    *("All layers", "Seconds per final"),
)


def text(sweep: AnalyzedSweep) -> str:
    if not sweep.ablation_scores:
        return ""
    shown = tables(sweep)
    return paragraphs(
        "## What each layer's adapters are worth",
        f"*{ablation_provenance(sweep).reminder}*",
        "Each final at its best epoch, scored again on the validation split with what its method trained in a span of layers "
        "removed; LayerNorms and head stay as trained, nothing is re-trained (Houlsby et al. 2019, figure 6). Changes in "
        "percent points, mean over the final seeds; layers are counted from 1, the lowest. A task scored by Matthews "
        "correlation is shown in accuracy, as in that figure. The score with nothing removed is the "
        "best of its epochs on this very split, so losses are a little too large. The seconds are in no other table.",
        shown["ablation"].markdown() if shown else "",
        bullets(Markup(line) for line in _missing(sweep)),
        *images(sweep, "ablation"),
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    manifest = sweep.manifest
    lines = [
        (
            manifest.models[cell.model].title,
            f"{manifest.tasks[cell.task].title} ({scores.metric or manifest.tasks[cell.task].score_title})",
            manifest.methods[cell.method].title,
            *_numbers(scores),
        )
        for cell, scores in sweep.ablation_scores.items()
        if scores
    ]
    table_caption = Markup(f"The method removed from layers without re-training. {ablation_provenance(sweep).caption}")
    return {"ablation": Table(header=HEADER, rows=lines, align="lllrrrrrr", caption=table_caption)} if lines else {}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame | None:
    """One row per cell and span of layers; None if the space asks for no ablation.

    Columns: model, task, method, first and last removed layer (counted from 1), score and change (percent points, means over n
    finals), change_std (sample standard deviation), n.
    """
    if not sweep.ablation_scores:
        return None
    found = [
        (cell.model, cell.task, cell.method, first + 1, last + 1, *_span(scores, first, last))
        for cell, scores in sweep.ablation_scores.items()
        if scores
        for first in range(scores.layers)
        for last in range(first, scores.layers)
    ]
    names = ["model", "task", "method", "first", "last", "score", "change", "change_std", "n"]
    return pd.DataFrame(found, columns=names)


def _span(scores: AblationScores, first: int, last: int) -> tuple[float, float, float, int]:
    """Mean score, mean change, its sample standard deviation (NaN for one final) and the number of finals, for one span."""
    changes = scores.changes[:, first, last]
    n = len(changes)
    return scores.ablated[:, first, last].mean(), changes.mean(), changes.std(ddof=1) if n > 1 else math.nan, n


def _numbers(scores: AblationScores) -> tuple[str, ...]:
    """The numbers of one cell for the table, in the order of `HEADER` from "Seeds" on."""
    alone = np.diag(scores.mean)  # [L]: mean change with one of L layers removed
    worst = int(alone.argmin())
    return (
        str(len(scores.full)),
        points(scores.full.mean()),
        signed(alone.mean(), 2),
        f"{signed(alone[worst], 2)} (layer {worst + 1})",
        signed(scores.mean[0, -1], 2),
        f"{scores.seconds.mean():.1f}",
    )


def _missing(sweep: AnalyzedSweep) -> list[str]:
    """Sentences that say which methods and cells were to be ablated but have no numbers, and why."""
    methods = sweep.manifest.methods
    rigid = dict.fromkeys(cell.method for cell in sweep.ablation_scores if not methods[cell.method].removable)
    lines = [
        f"{escape(methods[label].title)}: no ablation; this method cannot be removed by setting parameters to zero."
        for label in rigid
    ]
    left = [cell for cell, scores in sweep.ablation_scores.items() if scores is None and cell.method not in rigid]
    named = escape("; ".join(map(str, left[:12])) + (f"; {len(left) - 12} more" if len(left) > 12 else ""))
    return lines + ([f"{plural(len(left), 'cell')} without a stored ablation of a final: {named}."] if left else [])


SECTION = Section(text=text, rows=rows, tables=tables, provenance=ablation_provenance)
