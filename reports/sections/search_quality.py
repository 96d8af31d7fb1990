"""Expected validation score by number of tries, and whether more search could change the best method."""

from __future__ import annotations

from math import ceil

import pandas as pd

from reports.render.markdown import MISSING, Markup, bullets, escape, paragraphs, points
from reports.render.table import Table
from reports.sections.efficiency import images
from reports.sections.section import Section, caption, search_provenance
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.expected_best import LeadStability, lead_stability

HEADER = ("Model", "Task", "Method", "Tries", "One try", "A quarter", "Half", "All", "Gain of the second half")


def text(sweep: AnalyzedSweep) -> str:
    if not sweep.manifest.searches:
        return ""
    return paragraphs(
        "## Would more search change the order?",
        caption(search_provenance(sweep)),
        "Expected best validation score after that many tries: the mean over all orders in which "
        "the tries could have been made. A curve that still rises at its end shows that a larger budget may help. A marker at "
        "its end: the whole budget was used. A try that ASHA stopped counts with its best epoch so far; one "
        "that failed counts with the lowest score of its task.",
        *(_numbers(sweep) if sweep.expected_best else ()),
        *images(sweep, "tries"),
    )


def _numbers(sweep: AnalyzedSweep) -> tuple[str, str]:
    """Markdown of the table, and of one sentence per model and task."""
    columns = [(model, task) for model in sweep.manifest.models for task in sweep.manifest.tasks]
    return tables(sweep)["search"].markdown(), bullets(Markup(_told(sweep, *column)) for column in columns)


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """The table "search": expected best scores after 1, a quarter, half and all of the tries, one row per cell with a score.

    There is no table if every cell has a single configuration.
    """
    manifest, lines = sweep.manifest, []
    if not manifest.searches:
        return {}
    for cell, curve in sweep.expected_best.items():
        number = len(curve)
        places = [1, ceil(number / 4), ceil(number / 2), number]
        gain = curve[-1] - curve[places[2] - 1] if number > 1 else None
        titles = (
            manifest.models[cell.model].title,
            manifest.tasks[cell.task].title,
            manifest.methods[cell.method].title,
        )
        lines.append((*titles, str(number), *(points(curve[k - 1]) for k in places), points(gain)))
    table_caption = Markup(f"Expected best validation score against tries. {search_provenance(sweep).caption}")
    return {"search": Table(header=HEADER, rows=lines, align="lllrrrrrr", caption=table_caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per cell and number of tries: the expected best validation score (percent points), which the figure draws."""
    found = [
        (cell.model, cell.task, cell.method, k, value)
        for cell, curve in sweep.expected_best.items()
        for k, value in enumerate(curve, start=1)
    ]
    return pd.DataFrame(found, columns=["model", "task", "method", "tries", "expected_best"])


def _told(sweep: AnalyzedSweep, model: str, task: str) -> str:
    """A sentence on one model and task: which method leads, and whether more search could change that."""
    of_column = {c.method: curve for c, curve in sweep.expected_best.items() if (c.model, c.task) == (model, task)}
    where = escape(f"{sweep.manifest.models[model].title}, {sweep.manifest.tasks[task].title}")
    found = lead_stability(of_column)
    return f"{where}: {_verdict(sweep, found) if found else MISSING + ' too few tries to say.'}"


def _verdict(sweep: AnalyzedSweep, found: LeadStability) -> str:
    """The leader's lead, and whether another method could catch up, in words; scores in percent points."""
    leader = escape(sweep.manifest.methods[found.order_after_all[0]].title)
    order = (
        "half the tries gave the same order"
        if found.order_after_half == found.order_after_all
        else "half the tries gave another order"
    )
    if found.stable:
        return (
            f"{leader} leads by {points(found.lead)}, more than any other gained from the second half of its tries "
            f"({points(found.largest_gain)}); {order}. More search is unlikely to change who leads."
        )
    return (
        f"{leader} leads by {points(found.lead)}, another gained {points(found.largest_gain)} from the second half of its "
        f"tries; {order}. **More search could change who leads.**"
    )


SECTION = Section(text=text, rows=rows, tables=tables, provenance=search_provenance)
