"""The front of each cell that was searched for two objectives: no other configuration has a higher score and fewer parameters."""

from __future__ import annotations

import pandas as pd

from reports.render.markdown import MISSING, Markup, count, paragraphs, percent, points
from reports.render.table import Table
from reports.sections.section import Section, search_provenance, unit
from reports.sections.winners import describe, searches
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

HEADER = ("Model", "Task", "Method", "Trained", "Share", "Validation", "Searched", "Winner")


def text(sweep: AnalyzedSweep) -> str:
    shown = tables(sweep)
    if not shown:
        return ""
    where = unit(sweep.manifest.budget)
    return paragraphs(
        "### Score against parameters",
        shown["front"].markdown(("Model", "Task")),
        f"The front of each {where}: the configurations for which no other of the {where} has at least the score and at most the "
        "parameters. Only those that were trained to their end count, since the scores of stopped ones cannot be compared. "
        "*Trained*: all parameters that the optimiser changes, also as a share of the backbone. *Validation*: the best epoch's "
        "score on the validation split. **These are no results:** of each front only the winner was trained again on fresh seeds "
        "and scored on the test split, above. To compare another one with it, give the method a second row with its values. How "
        "much the choice of validation examples alone changes a score is said below.",
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """The table "front", by cell and number of parameters; no table for a sweep with one objective."""
    if sweep.manifest.budget.search != "multi":
        return {}
    models, tasks, methods = sweep.manifest.models, sweep.manifest.tasks, sweep.manifest.methods
    lines = []
    for cell, number in searches(sweep):
        method = methods[cell.method].title
        if sweep.manifest.budget.searches > 1:
            method = f"{method}, search {number + 1}"
        lines += [
            (
                *(models[cell.model].title, tasks[cell.task].title, method),
                *(count(row["trained"]), percent(row["trained"], models[cell.model].total), points(row["best_score"])),
                *(describe(sweep, cell, row), "winner" if _won(sweep, cell, number, row) else MISSING),
            )
            for _, row in front(sweep, cell, number).iterrows()
        ]
    table_caption = Markup(f"Validation score against parameters. {search_provenance(sweep).caption}")
    return {"front": Table(header=HEADER, rows=lines, align="lllrrrll", caption=table_caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame | None:
    """One row per configuration of a front: its trained parameters, validation score (percent points) and hyperparameters."""
    if sweep.manifest.budget.search != "multi":
        return None
    columns = ["model", "task", "method", "search", "trial", "run_id", "trained", "best_score"]
    found = [
        {
            **{name: row[name] for name in columns},
            "hyperparameters": describe(sweep, cell, row),
            "winner": _won(sweep, cell, number, row),
        }
        for cell, number in searches(sweep)
        for _, row in front(sweep, cell, number).iterrows()
    ]
    return pd.DataFrame(found, columns=[*columns, "hyperparameters", "winner"])


def front(sweep: AnalyzedSweep, cell: Cell, number: int) -> pd.DataFrame:
    """Return the rows of `sweep.configurations` on the front of this search of the cell, those with the fewest parameters first.

    Of several with the same score and parameters the one is kept that would win: the lowest learning rate, then the earliest.
    """
    table = sweep.configurations
    done = table[(table["cell"] == str(cell)) & (table["search"] == number) & (table["state"] == "DONE")]
    rate = pd.to_numeric(done["param.lr"], errors="coerce") if "param.lr" in done else 0.0
    order = done.assign(rate=rate).dropna(subset=["trained", "best_score"])
    order = order.sort_values(["trained", "best_score", "rate"], ascending=[True, False, True], kind="stable")
    best = order["best_score"].cummax().shift()
    return order[best.isna() | (order["best_score"] > best)].drop(columns="rate")


def _won(sweep: AnalyzedSweep, cell: Cell, number: int, row: pd.Series) -> bool:
    return row["trial"] == sweep.winners.get((str(cell), number), "")


SECTION = Section(text=text, rows=rows, tables=tables, provenance=search_provenance)
