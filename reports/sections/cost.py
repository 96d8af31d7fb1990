"""What each method costs: hours, hours per point gained, parameters, memory, time of an epoch, size on disk."""

from __future__ import annotations

import math

import pandas as pd

from reports.data.cells import CellResult
from reports.data.trial_table import by_cell
from reports.plots.method_styles import ordered_cells
from reports.render.markdown import MISSING, Markup, count, paragraphs, plural
from reports.render.table import Table
from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

HEADER = {
    "hours": "Hours",
    "hours_per_point": "Hours per point",
    "active": "Active",
    "stored_bytes": "Stored, bytes",
    "memory_mib": "Peak memory, MiB",
    "seconds_per_epoch": "Epoch, s",
}


def text(sweep: AnalyzedSweep) -> str:
    return paragraphs(
        "## Cost",
        tables(sweep)["cost"].markdown(("Model", "Task")),
        "*Hours*: training time of all trials of the cell, stopped, failed and re-used ones included; trials that share a device "
        "wait for each other, so that times compare only within one sweep. *Point*: gained above a constant prediction, on the "
        f"test split. {_parameters(sweep)}*Peak memory*: of the process or device while the trial was on it, "
        "the model and other trials included. *Epoch*: mean over the finals, evaluation included.",
        _unrecorded(sweep),
    )


def _parameters(sweep: AnalyzedSweep) -> str:
    """What active and stored parameters are, if any are known."""
    if "active" not in _shown(rows(sweep)):
        return ""
    return (
        "*Active*: values of the finished model that are not those of the pretrained model, without pruned weights and what "
        "only training needs. *Stored*: what has to be kept beside that model to use the result, with positions or mask bits "
        "where needed (the checkpoint is dense: tables/cost.csv). "
    )


def _shown(found: pd.DataFrame) -> list[str]:
    """The keys of `HEADER` of which any cell has a value."""
    return [name for name in HEADER if found[name].notna().any()]


def _unrecorded(sweep: AnalyzedSweep) -> str:
    """A note on cells whose results are from before active and stored numbers were recorded; "" if there are none."""
    number = sum(result.counts is not None and result.counts.active is None for result in sweep.results.values())
    if not number:
        return ""
    return (
        f"{plural(number, 'cell')} without active and stored numbers: an older version of this program recorded the results. Its "
        "*Stored* was the size of the dense checkpoint, another quantity, which is not shown here."
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    manifest = sweep.manifest
    found = rows(sweep).set_index(["model", "task", "method"], drop=False)
    shown = _shown(found)
    lines = [
        (
            *(manifest.models[row["model"]].title, manifest.tasks[row["task"]].title),
            manifest.methods[row["method"]].title,
            *(_number(name, row[name]) for name in shown),
        )
        for row in found.loc[[(c.model, c.task, c.method) for c in ordered_cells(sweep)]].to_dict("records")
    ]
    table_caption = Markup("Cost of each cell; points above a constant prediction on the test split.")
    header = ("Model", "Task", "Method", *(HEADER[name] for name in shown))
    return {"cost": Table(header=header, rows=lines, align="lll" + "r" * len(shown), caption=table_caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per cell: the columns of `HEADER`; `gained` (percent points above a constant prediction); `trained`, `total` (of
    the encoder) and `stored` (32-bit numbers), in parameters; and `saved_bytes` (the dense checkpoint). Values that are not
    known are None or NaN.
    """
    groups = by_cell(sweep.manifest, sweep.trials)
    found = []
    for cell, result in sweep.results.items():
        key = (cell.model, cell.task, cell.method)
        spent = hours(sweep, cell)
        gained = _gained(sweep, result)
        found.append(
            {
                **dict(zip(("model", "task", "method"), key, strict=True)),
                "hours": spent,
                "gained": gained,
                "hours_per_point": spent / gained if gained is not None and gained > 0 else None,
                **{
                    name: getattr(result.counts, name, None) for name in ("trained", "active", "stored", "stored_bytes")
                },
                "total": sweep.manifest.models[cell.model].total,
                **_measured(groups[cell]),
            }
        )
    return pd.DataFrame(found)


def hours(sweep: AnalyzedSweep, cell: Cell) -> float:
    """Hours of training of all trials of a cell, search and finals, re-used ones included."""
    return float(sweep.trials.loc[sweep.trials["cell"] == str(cell), "seconds"].sum()) / 3600


def _gained(sweep: AnalyzedSweep, result: CellResult) -> float | None:
    """Mean test score minus the score of a constant prediction, percent points; None if one of them is not known."""
    majority = sweep.manifest.tasks[result.cell.task].majority
    return None if majority is None or result.mean is None else result.mean - majority


def _measured(trials: pd.DataFrame) -> dict[str, float]:
    """Measurements of one cell's trials; NaN if there are none.

    saved_bytes: the largest checkpoint of its finals. memory_mib: peak over all trials. seconds_per_epoch: mean over all epochs
    of its finals.
    """
    finals = trials[trials["phase"] == "final"]
    epochs = finals["epochs"].sum()
    return {
        "saved_bytes": finals["saved_bytes"].max(),
        "memory_mib": trials["memory_mib"].max(),
        "seconds_per_epoch": float(finals["seconds"].sum() / epochs) if epochs else math.nan,
    }


def _number(name: str, value: float | None) -> str:
    """A value of the column `name` of `HEADER` as text."""
    if value is None or math.isnan(value):
        return MISSING
    if name in ("hours", "hours_per_point", "seconds_per_epoch"):
        return f"{value:.3g}"
    return count(value)


SECTION = Section(text=text, rows=rows, tables=tables)
