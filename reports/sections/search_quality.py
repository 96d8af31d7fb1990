"""Expected validation score by number of tries, and whether more search could change the best method."""

from __future__ import annotations

from math import ceil, sqrt

import pandas as pd

from reports.data.manifest import TaskFacts
from reports.plots.method_styles import ordered_cells
from reports.render.markdown import Markup, bullets, escape, paragraphs, points
from reports.render.table import Table
from reports.sections.efficiency import images
from reports.sections.section import Section, search_provenance
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.expected_best import LeadStability, lead_stability

HEADER = ("Model", "Task", "Method", "Tries", "One try", "A quarter", "Half", "All", "Gain of the second half")


def text(sweep: AnalyzedSweep) -> str:
    if not sweep.manifest.searches:
        return ""
    columns = [(model, task) for model in sweep.manifest.models for task in sweep.manifest.tasks]
    return paragraphs(
        "### Would more search change the order?",
        bullets(Markup(_told(sweep, *column)) for column in columns) if sweep.expected_best else "",
        *images(sweep, "tries"),
        "Expected best validation score after that many tries, over all orders in which they could have been made; numbers in "
        "tables/search.csv. A try that ASHA stopped counts with its best epoch so far; one that failed counts with the lowest "
        "score of its task.",
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """The table "search": expected best scores after 1, a quarter, half and all of the tries, one row per cell with a score.

    There is no table if every cell has a single configuration.
    """
    manifest, lines = sweep.manifest, []
    if not manifest.searches:
        return {}
    for cell in ordered_cells(sweep):
        curve = sweep.expected_best.get(cell, [])
        if not curve:
            continue
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
    cells = {cell: curve for cell, curve in sweep.expected_best.items() if (cell.model, cell.task) == (model, task)}
    models, facts = sweep.manifest.models, sweep.manifest.tasks[task]
    where = escape(f"{models[model].title}, {facts.title}" if len(models) > 1 else facts.title)
    own = [result.progress for cell, result in sweep.results.items() if (cell.model, cell.task) == (model, task)]
    if any(progress in ("search unfinished", "not started") for progress in own) and not sweep.curtailed:
        return f"{where}: the search is not over."
    found = lead_stability({cell.method: curve for cell, curve in cells.items()})
    if found is None:
        return f"{where}: too few tries to say."
    best = max(curve[-1] for curve in cells.values())
    return f"{where}: {_verdict(sweep, found, _noise(facts, best))}"


def _noise(facts: TaskFacts, score: float) -> float | None:
    """Half the width of the 95 % interval of an accuracy on the validation split, percent points; None for other metrics.

    For two methods whose errors are independent, the interval of a difference is wider still.
    """
    if facts.score != "accuracy" or not facts.validation:
        return None
    share = min(max(score / 100, 0.0), 1.0)
    return 196 * sqrt(share * (1 - share) / facts.validation)


def _verdict(sweep: AnalyzedSweep, found: LeadStability, noise: float | None) -> str:
    """The leader's lead, and whether another method could catch up, in words; scores in percent points."""
    leader = escape(sweep.manifest.methods[found.order_after_all[0]].title)
    lead = f"{leader} leads by {points(found.lead)}"
    if noise is not None and found.lead < noise:
        return f"{lead}, less than what the choice of validation examples explains (± {points(noise)}). **Who leads is open.**"
    if found.stable:
        return (
            f"{lead}, more than any other gained from the second half of its tries ({points(found.largest_gain)}). More search "
            "is unlikely to change who leads."
        )
    return (
        f"{lead}, another gained {points(found.largest_gain)} from the second half of its tries. **More search could change who "
        "leads.**"
    )


SECTION = Section(text=text, rows=rows, tables=tables, provenance=search_provenance)
