"""The winning configuration of each cell, and whether it is at the edge of the searched range."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from reports.data.cells import hyperparameters
from reports.data.configurations import can_win
from reports.plots.method_styles import ordered_cells
from reports.render.markdown import MISSING, Markup, escape, paragraphs, points
from reports.render.table import Table
from reports.sections.section import Section, caption, search_provenance
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.edges import Edge, as_number, edge
from search_spaces.dimensions import grid_size
from search_spaces.language import Cell
from search_spaces.records import SearchKey

HEADER = ("Model", "Task", "Method", "Searched and chosen", "Validation", "Best epoch", "Tied")


def text(sweep: AnalyzedSweep) -> str:
    return paragraphs(
        "## The search",
        caption(search_provenance(sweep)),
        "### Winners",
        tables(sweep)["winners"].markdown(("Model", "Task")),
        f"*Validation*: the winner's validation score at its best epoch{_mean(sweep)}. *Tied*: other "
        f"{_kind(sweep)} of the {'search' if sweep.manifest.budget.searches > 1 else 'cell'} with the same score. "
        "tables/winners.csv has those at an end of their range (⇥ above): the lowest or highest of three or more values, or "
        "within 5 % of the end.",
        _otherwise(sweep),
        _nothing_found(sweep),
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    lines = [_line(sweep, cell, number) for cell, number in searches(sweep)]
    table_caption = Markup(f"Winning configurations. {search_provenance(sweep).caption}")
    return {"winners": Table(header=HEADER, rows=lines, align="llllrrr", caption=table_caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per search of a cell: its winner's hyperparameters (one text), validation score (percent points), best epoch.

    `at_edge` names the hyperparameters whose value is at an end of the searched range.
    """
    return pd.DataFrame([_csv_row(sweep, cell, number) for cell, number in searches(sweep)])


def searches(sweep: AnalyzedSweep) -> list[SearchKey]:
    """Every search of the sweep, by cell."""
    return [(cell, number) for cell in ordered_cells(sweep) for number in range(sweep.manifest.budget.searches)]


def _mean(sweep: AnalyzedSweep) -> str:
    seeds = sweep.manifest.budget.search_seeds
    return f", the mean over {seeds} seeds" if seeds > 1 else ""


def _kind(sweep: AnalyzedSweep) -> str:
    """The noun for what is compared within a cell; with a single search seed every configuration is one trial."""
    return "configurations" if sweep.manifest.budget.search_seeds > 1 else "trials"


def _otherwise(sweep: AnalyzedSweep) -> str:
    """A warning for winners that do not have the best validation score of their cell."""
    cells = [named(sweep, cell, number) for cell, number in searches(sweep) if _beaten(sweep, cell, number)]
    if not cells:
        return ""
    return (
        f"**Not the best on the validation split:** the winners of {escape(', '.join(cells))}. They were selected by "
        "another criterion, or before their search was over."
    )


def _nothing_found(sweep: AnalyzedSweep) -> str:
    """A warning for winners whose validation score is not above the test score of a constant prediction."""
    cells = [
        named(sweep, cell, number)
        for cell, number in searches(sweep)
        if (winner := won(sweep, cell, number)) is not None
        and (constant := sweep.manifest.tasks[cell.task].majority) is not None
        and winner["best_score"] <= constant
    ]
    if not cells:
        return ""
    return (
        f"**No better than a constant prediction on the validation split:** the winners of {escape(', '.join(cells))}. "
        "Nothing was learnt in their searches, so that chance chose among the configurations."
    )


def named(sweep: AnalyzedSweep, cell: Cell, number: int) -> str:
    """The cell, with the number of its search, counted from 1, if cells have several."""
    return f"{cell}, search {number + 1}" if sweep.manifest.budget.searches > 1 else str(cell)


def _beaten(sweep: AnalyzedSweep, cell: Cell, number: int) -> bool:
    """Whether another configuration that can win this search has a higher validation score than its winner."""
    winner = won(sweep, cell, number)
    return winner is not None and bool((_candidates(sweep, cell, number)["best_score"] > winner["best_score"]).any())


def won(sweep: AnalyzedSweep, cell: Cell, number: int) -> pd.Series | None:
    """The winner's row of `sweep.configurations`; None while the search has no winner or its run is not in the store."""
    table = sweep.configurations
    rows = table[(table["cell"] == str(cell)) & (table["trial"] == sweep.winners.get((str(cell), number), ""))]
    return None if rows.empty else rows.iloc[0]


def _candidates(sweep: AnalyzedSweep, cell: Cell, number: int) -> pd.DataFrame:
    """The configurations that can win a search: those trained to their end, and those that a time budget stopped."""
    table = sweep.configurations
    return table[(table["cell"] == str(cell)) & (table["search"] == number) & can_win(table)]


def edges_of(sweep: AnalyzedSweep, cell: Cell, winner: pd.Series) -> dict[str, Edge]:
    """The searched hyperparameters whose winning value is at an end of its range, with that end ("lowest" or "highest")."""
    values = hyperparameters(winner)
    found = {
        name: edge(dimension, values.get(name))
        for name, dimension in sweep.manifest.methods[cell.method].searched.items()
    }
    return {name: end for name, end in found.items() if end}


def describe(sweep: AnalyzedSweep, cell: Cell, winner: pd.Series) -> str:
    """The winner's values of the searched hyperparameters as text, for example "lr 0.0001, r 32"."""
    return _values(winner, sweep.manifest.methods[cell.method].searched) or "nothing was searched"


def chosen(sweep: AnalyzedSweep, cell: Cell, winner: pd.Series) -> str:
    """Like `describe`, without hyperparameters that could take one value only; "" if there are no others."""
    searched = sweep.manifest.methods[cell.method].searched
    return _values(winner, [name for name, dimension in searched.items() if grid_size({name: dimension}) > 1])


def _values(winner: pd.Series, names: Iterable[str]) -> str:
    values = hyperparameters(winner)
    return ", ".join(f"{name} {_value(values[name])}" for name in names if name in values)


def _value(value: str) -> str:
    number = as_number(value)
    return value if number is None else f"{number:.4g}"


def _ties(sweep: AnalyzedSweep, cell: Cell, number: int, winner: pd.Series) -> int:
    """How many other candidates have exactly the winner's validation score; -1 if the winner is not a candidate itself."""
    return int((_candidates(sweep, cell, number)["best_score"] == winner["best_score"]).sum()) - 1


def _line(sweep: AnalyzedSweep, cell: Cell, number: int) -> tuple[object, ...]:
    manifest = sweep.manifest
    method = manifest.methods[cell.method].title
    if manifest.budget.searches > 1:
        method = f"{method}, search {number + 1}"
    where = (manifest.models[cell.model].title, manifest.tasks[cell.task].title, method)
    winner = won(sweep, cell, number)
    if winner is None:
        known = "winner's run is not in the store" if (str(cell), number) in sweep.winners else "no winner yet"
        return (*where, known, MISSING, MISSING, MISSING)
    epoch = MISSING if pd.isna(winner["best_epoch"]) else f"{winner['best_epoch']:.0f} of {winner['epochs']:.0f}"
    return (
        *where,
        describe(sweep, cell, winner),
        points(winner["best_score"]),
        epoch,
        str(max(_ties(sweep, cell, number, winner), 0)),
    )


def _csv_row(sweep: AnalyzedSweep, cell: Cell, number: int) -> dict[str, object]:
    row: dict[str, object] = {"model": cell.model, "task": cell.task, "method": cell.method, "search": number}
    winner = won(sweep, cell, number)
    if winner is None:
        return {**row, "trial": sweep.winners.get((str(cell), number), ""), "at_edge": ""}
    return {
        **row,
        "trial": winner["trial"],
        "run_id": winner["run_id"],
        "hyperparameters": describe(sweep, cell, winner),
        "best_score": winner["best_score"],
        "best_epoch": winner["best_epoch"],
        "epochs": winner["epochs"],
        "ties": max(_ties(sweep, cell, number, winner), 0),
        "at_edge": "; ".join(f"{name} {end}" for name, end in edges_of(sweep, cell, winner).items()),
    }


SECTION = Section(text=text, rows=rows, tables=tables, provenance=search_provenance)
