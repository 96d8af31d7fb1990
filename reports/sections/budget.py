"""Trials, epochs and hours of each cell, so that a reader can judge whether the comparison is fair."""

from __future__ import annotations

import math

import pandas as pd

from reports.plots.method_styles import ordered_cells
from reports.render.markdown import MISSING, Markup, escape, paragraphs, plural
from reports.render.table import Table
from reports.sections.section import Section, most, several, unit
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Budget
from search_spaces.records import BUDGET

HEADER = {
    "planned": "Planned",
    "tried": "Tried",
    "grid": "Grid",
    "covered": "Covered, %",
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
RARE = ("stopped", "failed", "invalid", "diverged", "cached", "finals_failed", "finals_collapsed")


def text(sweep: AnalyzedSweep) -> str:
    budget = sweep.manifest.budget
    return paragraphs(
        "## Budget",
        f"Every {unit(budget)} may try {_may_try(budget)} of at most "
        f"{plural(sweep.manifest.recipe.epochs, 'epoch')} and re-trains its winner on "
        f"{plural(budget.final_seeds, 'seed')}{several(budget)}.",
        tables(sweep)["budget"].markdown(("Model", "Task")),
        f"*Grid*: configurations in the cell's search space ({MISSING}: a range of real numbers). {_columns(sweep.spending)}"
        "Hours: training time summed over trials, which run at the same time where they share a device. tables/budget.csv has "
        "all counts.",
        _uneven(sweep.spending),
        _coverage(sweep),
        _curtailed(sweep),
        _replaced(sweep),
        _reasons(sweep),
    )


def _shown(spent: pd.DataFrame) -> list[str]:
    """The keys of `HEADER` that say something: without counts of `RARE` that are 0, and numbers that follow from others."""
    known = {"planned": spent["tried"].equals(spent["planned"]), "done": not spent[list(RARE[:3])].any(axis=None)}
    return [name for name in HEADER if not known.get(name) and (name not in RARE or spent[name].any())]


def _columns(spent: pd.DataFrame) -> str:
    """What the counts of trials mean, for those that are shown."""
    told = {
        "stopped": "*Stopped*: by ASHA or a time budget. ",
        "failed": "*Failed*: ended without a score. ",
        "diverged": "*Diverged*: counted as done, stopped, failed or invalid, too. ",
        "cached": "*Re-used*: taken from an earlier sweep, their time is not counted again. ",
        "finals_collapsed": "*Collapsed*: with one constant prediction, in the results like any other. ",
    }
    return "".join(text for name, text in told.items() if spent[name].any())


def _may_try(budget: Budget) -> str:
    """How many configurations a cell may try, on how many seeds, as a part of a sentence."""
    smaller = " (fewer where the whole grid is smaller)" if budget.trials > 1 else ""
    seeds = (
        f", each on {budget.search_seeds} seeds, which are counted below as trials," if budget.search_seeds > 1 else ""
    )
    return f"{most(budget)}{smaller}{seeds}"


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """The table "budget": one row per cell and their sum, with the columns of `_shown`."""
    spent = sweep.spending.set_index(["model", "task", "method"])
    manifest = sweep.manifest
    shown = _shown(spent)
    lines: list[list[object]] = [
        [
            manifest.models[cell.model].title,
            manifest.tasks[cell.task].title,
            manifest.methods[cell.method].title,
            *(_number(name, spent.at[(cell.model, cell.task, cell.method), name]) for name in shown),
        ]
        for cell in ordered_cells(sweep)
    ]
    sums = {name: math.nan if name in ("grid", "covered") else spent[name].sum() for name in shown}
    lines.append([Markup("*All*"), "", "", *(_number(name, sums[name]) for name in shown)])
    caption = Markup(
        f"Trials, epochs and hours of each cell; the budget is {most(manifest.budget)} per {unit(manifest.budget)} for every "
        "method."
    )
    header = ["Model", "Task", "Method", *(HEADER[name] for name in shown)]
    return {"budget": Table(header=header, rows=lines, align="lll" + "r" * len(shown), caption=caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per cell: numbers of trials, epochs and hours, separately for the search and the finals."""
    return sweep.spending


def _number(name: str, value: float) -> str:
    if math.isnan(value):
        return MISSING
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


def _coverage(sweep: AnalyzedSweep) -> str:
    """A sentence on methods whose grids were covered to different degrees; "" if there are none.

    Per method it uses the cell of which least was covered.
    """
    covered = sweep.spending.groupby("method", sort=False)["covered"].min(skipna=False)
    if covered.round().nunique(dropna=False) <= 1:
        return ""
    methods = sweep.manifest.methods
    told = [
        f"{escape(methods[label].title)} {f'{covered[label]:.0f} %' if covered[label] == covered[label] else MISSING}"
        for label in methods
    ]
    return (
        "**Equal numbers of tries cover unequal shares of the grids:** "
        + ", ".join(told)
        + ". A method of whose grid less was "
        "tried is further from its best configuration."
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
