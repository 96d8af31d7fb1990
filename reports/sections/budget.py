"""Trials, epochs and hours of each cell, so that a reader can judge whether the comparison is fair."""

from __future__ import annotations

import pandas as pd

from reports.render.markdown import MISSING, Markup, escape, paragraphs, plural
from reports.render.table import Table
from reports.sections.section import Section, most, several, unit
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Budget
from search_spaces.records import BUDGET

HEADER = {
    "planned": "Planned",
    "tried": "Tried",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "Failed",
    "invalid": "Invalid",
    "diverged": "Diverged",
    "cached": "Re-used",
    "epochs": "Epochs",
    "search_hours": "Search, h",
    "finals": "Finals",
    "finals_failed": "Finals failed",
    "finals_collapsed": "Finals collapsed",
    "final_hours": "Finals, h",
}


def text(sweep: AnalyzedSweep) -> str:
    budget = sweep.manifest.budget
    return paragraphs(
        "## Budget",
        f"Every {unit(budget)} may try {_may_try(budget)} of at most "
        f"{plural(sweep.manifest.recipe.epochs, 'epoch')} and re-trains its winner on "
        f"{plural(budget.final_seeds, 'seed')}{several(budget)}. *Stopped*: by ASHA or a time budget. *Failed*: ended without a "
        "score. *Diverged* trials are also counted as done, stopped, failed or invalid. *Re-used*: taken from an earlier sweep, "
        "their time is not counted again. "
        "*Collapsed*: finals with one constant prediction, which count in the results like any other. Hours are "
        "training time summed over trials; trials that share a device run at the same time, so they can exceed the "
        "hours on the clock.",
        tables(sweep)["budget"].markdown(),
        _uneven(sweep.spending),
        _curtailed(sweep),
        _replaced(sweep),
        _reasons(sweep),
    )


def _may_try(budget: Budget) -> str:
    """How many configurations a cell may try, on how many seeds, as a part of a sentence."""
    smaller = " (fewer where the whole grid is smaller)" if budget.trials > 1 else ""
    seeds = (
        f", each on {budget.search_seeds} seeds, which are counted below as trials," if budget.search_seeds > 1 else ""
    )
    return f"{most(budget)}{smaller}{seeds}"


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    spent = sweep.spending
    manifest = sweep.manifest
    lines: list[list[object]] = [
        [
            manifest.models[row["model"]].title,
            manifest.tasks[row["task"]].title,
            manifest.methods[row["method"]].title,
            *(_number(name, row[name]) for name in HEADER),
        ]
        for row in spent.to_dict("records")
    ]
    lines.append([Markup("*All*"), "", "", *(_number(name, spent[name].sum()) for name in HEADER)])
    caption = Markup(
        f"Trials, epochs and hours of each cell; the budget is {most(manifest.budget)} per {unit(manifest.budget)} for every "
        "method."
    )
    header = ["Model", "Task", "Method", *HEADER.values()]
    return {"budget": Table(header=header, rows=lines, align="lll" + "r" * len(HEADER), caption=caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per cell: numbers of trials, epochs and hours, separately for the search and the finals."""
    return sweep.spending


def _number(name: str, value: float) -> str:
    if not name.endswith("hours"):
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _uneven(spent: pd.DataFrame) -> str:
    """A sentence on whether all cells tried the same number of configurations: a warning if they did not."""
    if spent["tried"].nunique() <= 1:
        return "Every cell tried the same number of configurations."
    low, high = spent["tried"].min(), spent["tried"].max()
    return (
        f"**The cells have tried different numbers of configurations ({low} to {high}).** More trials are an advantage."
    )


def _curtailed(sweep: AnalyzedSweep) -> str:
    """How many cells and trials a time budget cut short, as text; "" if it ended no search."""
    if not sweep.curtailed:
        return ""
    spent = sweep.spending
    short = int((spent["tried"] < spent["planned"]).sum())
    stopped = int((sweep.trials["reason"] == BUDGET).sum())
    return (
        f"**--budget {escape(sweep.curtailed)} ended the searches of all cells at one moment:** {short} of "
        f"{plural(len(spent), 'cell')} tried fewer configurations than planned, and {plural(stopped, 'running trial')} "
        "stopped there. Such a trial can win its cell with the best score that it had by then."
    )


def _replaced(sweep: AnalyzedSweep) -> str:
    """A warning about finals of earlier winners, trained before the searches were resumed; "" if there are none."""
    number = int((sweep.trials["phase"] == "replaced").sum())
    if not number:
        return ""
    return (
        f"**{plural(number, 'final')} of earlier winners count in no result:** a time budget had ended the searches, which "
        "were then resumed and found better configurations. Test scores were known before that; a search "
        "that is continued because of them is no longer independent of the test split. Their hours are in *Finals, h*."
    )


def _reasons(sweep: AnalyzedSweep) -> str:
    """A table of the 20 most frequent reasons for which trials failed; "" if none failed."""
    failed = sweep.trials[sweep.trials["state"].isin(("FAILED", "INVALID"))]
    if failed.empty:
        return ""
    counted = failed.groupby(["cell", "state", "reason"], sort=False).size().sort_values(ascending=False, kind="stable")
    lines = [(cell, state, reason or MISSING, str(n)) for (cell, state, reason), n in counted.head(20).items()]
    more = f"{len(counted) - 20} more reasons are in the table of trials." if len(counted) > 20 else ""
    shown = Table(
        header=("Cell", "State", "Reason", "Trials"), rows=lines, align="lllr", caption=Markup("Why trials failed.")
    )
    return paragraphs("Failures:", shown.markdown(), more)


SECTION = Section(text=text, rows=rows, tables=tables)
