"""What each method costs: hours, hours per point gained, parameters, memory, time of an epoch, size on disk."""

from __future__ import annotations

import math

import pandas as pd

from reports.data.cells import CellResult
from reports.data.trial_table import by_cell
from reports.render.markdown import MISSING, Markup, count, paragraphs, plural, points
from reports.render.table import Table
from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep

HEADER = {
    "hours": "Hours",
    "gained": "Points gained",
    "hours_per_point": "Hours per point",
    "trained": "Trained",
    "active": "Active",
    "stored": "Stored",
    "stored_bytes": "Stored, bytes",
    "total": "Encoder",
    "saved_bytes": "Checkpoint, bytes",
    "memory_mib": "Peak memory, MiB",
    "seconds_per_epoch": "Epoch, s",
}


def text(sweep: AnalyzedSweep) -> str:
    return paragraphs(
        "## Cost",
        "*Hours*: training time of all trials of the cell, search and finals, stopped, failed and re-used ones "
        "included. "
        "*Points gained*: mean of the finals above a constant prediction, on the test split. *Trained*: parameters "
        "that the optimiser moves. *Active*: values of the finished model that are not those of the pretrained encoder, without "
        "pruned weights and without what only training needs. *Stored*: what has to be kept beside the encoder to use the result "
        "again, as a number of 32-bit numbers: the active values, and the positions or mask bits without which they cannot be "
        "put back. *Encoder*: parameters of the pretrained model, needed besides. *Checkpoint*: the file that this program "
        "writes, which is dense. *Peak memory* is that of the process or device, the encoder and trials that ran beside it "
        "included; *epoch*: mean over the finals, evaluation included. Trials that share a device wait for each "
        "other, so that times compare only within one sweep.",
        tables(sweep)["cost"].markdown(),
        _unrecorded(sweep),
    )


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
    lines = [
        (
            *(manifest.models[row["model"]].title, manifest.tasks[row["task"]].title),
            manifest.methods[row["method"]].title,
            *(_number(name, row[name]) for name in HEADER),
        )
        for row in rows(sweep).to_dict("records")
    ]
    table_caption = Markup("Cost of each cell; points gained above a constant prediction on the test split.")
    header = ("Model", "Task", "Method", *HEADER.values())
    return {"cost": Table(header=header, rows=lines, align="lll" + "r" * len(HEADER), caption=table_caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per cell, with the columns of `HEADER`; values that are not known are None or NaN."""
    groups = by_cell(sweep.manifest, sweep.trials)
    found = []
    for cell, result in sweep.results.items():
        key = (cell.model, cell.task, cell.method)
        hours = float(groups[cell]["seconds"].sum()) / 3600
        gained = _gained(sweep, result)
        found.append(
            {
                **dict(zip(("model", "task", "method"), key, strict=True)),
                "hours": hours,
                "gained": gained,
                "hours_per_point": hours / gained if gained is not None and gained > 0 else None,
                **{
                    name: getattr(result.counts, name, None) for name in ("trained", "active", "stored", "stored_bytes")
                },
                "total": sweep.manifest.models[cell.model].total,
                **_measured(groups[cell]),
            }
        )
    return pd.DataFrame(found)


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
    if name == "gained":
        return points(value)
    if name in ("hours", "hours_per_point", "seconds_per_epoch"):
        return f"{value:.3g}"
    return count(value)


SECTION = Section(text=text, rows=rows, tables=tables)
