"""Which ranges should be searched once more before a cell's result is read as its method's.

A cell needs a second look if the winner of a search has a value at the end of its searched range, or if its finals score no
better than a constant prediction. Then the configuration found, not the method, may be what is weak.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reports.data.manifest import MethodFacts
from reports.render.markdown import Markup, escape
from reports.sections.winners import edges_of, won
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.edges import Edge, as_code, highest, wider
from search_spaces.language import Cell, Choice, Dimension

# A space refuses learning rates from here on.
MAX_LR = 10
BOTH: tuple[tuple[str, Edge], ...] = (("lr", "lowest"), ("lr", "highest"))


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """Why a cell should be searched again.

    ends: the hyperparameters of winners at an end of their range, with that end; with several searches the most frequent end.
    constant: whether the mean of the finals is not above the score of a constant prediction.
    """

    ends: Mapping[str, Edge]
    constant: bool


def second_looks(sweep: AnalyzedSweep) -> dict[Cell, SecondLook]:
    """Return why cells should be searched again; cells that need not be are left out."""
    found = {}
    for cell, result in sweep.results.items():
        majority = sweep.manifest.tasks[cell.task].majority
        constant = majority is not None and result.mean is not None and result.mean <= majority
        ends = ends_of(sweep, cell)
        if ends or constant:
            found[cell] = SecondLook(ends=ends, constant=constant)
    return found


def advice(sweep: AnalyzedSweep, model: str) -> list[Markup]:
    """The ranges to write into the space instead, for one model: a line per method row that has any.

    The range of a row is widened for every task on which it needs it, since a space has one range per row.
    """
    looks = {cell: look for cell, look in second_looks(sweep).items() if cell.model == model}
    found = []
    for label, facts in sweep.manifest.methods.items():
        ranges = widened(facts, [look for cell, look in looks.items() if cell.method == label])
        if ranges:
            write = ", ".join(f"{name}={as_code(dimension)}" for name, dimension in ranges.items())
            found.append(Markup(f"{escape(facts.title)}: `{write}`"))
    return found


def ends_of(sweep: AnalyzedSweep, cell: Cell) -> dict[str, Edge]:
    """The hyperparameters of the cell's winners at an end of their range; of several searches, with the most frequent end."""
    numbers = range(sweep.manifest.budget.searches)
    rows = [row for number in numbers if (row := won(sweep, cell, number)) is not None]
    each = [edges_of(sweep, cell, row) for row in rows]
    names = dict.fromkeys(name for ends in each for name in ends)
    seen = {name: [ends[name] for ends in each if name in ends] for name in names}
    return {name: max(ends, key=ends.count) for name, ends in seen.items()}


def widened(facts: MethodFacts, looks: Iterable[SecondLook]) -> dict[str, Dimension]:
    """Return the ranges of a row that should be searched instead, by hyperparameter: each end moved once where it is asked for.

    A row that is no better than a constant prediction gets a wider learning rate on both sides, since its winner is chance.
    """
    ends: dict[tuple[str, Edge], None] = {}
    for look in looks:
        ends |= dict.fromkeys([*look.ends.items(), *(BOTH if look.constant else ())])
    found: dict[str, Dimension] = {}
    for name, end in ends:
        before = found.get(name) or facts.searched.get(name) or Choice((facts.fixed[name],))
        after = wider(before, end)
        if after != before and (name != "lr" or highest(after) < MAX_LR):
            found[name] = after
    return found
