"""What a section of the report consists of: text, rows of a CSV file, tables for LaTeX, and the provenance of its scores.

To add a section, write a file that defines `SECTION` and add it to `SECTIONS` in `sections/__init__.py`. Its position there is
its position in summary.md and on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from reports.render.markdown import Markup, plural
from reports.render.table import Table
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Budget

Split = Literal["test", "validation"]
_WARNINGS = {
    "results": "",
    "search": "These are maxima of the search, optimistic, and no results.",
    "removal": "These are changes under removal, and no results.",
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the scores of a section come from.

    split: the split that the scores were measured on.
    selected_on: the split by which the configurations were selected; must differ from `split` where results are described.
    describes: results of finals, the search itself, or changes of the score when the method is removed from layers of the finals.
    rule, seeds, tries: how configurations were selected, and the numbers of seeds and of configurations tried per cell. All
        three are printed in the caption.
    """

    split: Split
    selected_on: Split
    describes: Literal["results", "search", "removal"]
    rule: str
    seeds: str
    tries: str

    def check(self, section: str) -> None:
        """Raise ValueError if results were selected on the split that they report; `section` is named in the message."""
        if self.describes == "results" and self.split == self.selected_on:
            raise ValueError(
                f"section {section!r} reports scores of the {self.split} split, on which its configurations were "
                "selected: refused"
            )

    @property
    def caption(self) -> str:
        """One line of plain text: shown where scores of this kind come first, and in the captions of all tables for LaTeX."""
        line = f"Scores: {self.split} split. Selected: {self.rule}. Seeds: {self.seeds}. Tries: {self.tries}."
        return f"{line} {_WARNINGS[self.describes]}".rstrip()

    @property
    def reminder(self) -> str:
        """The first and the last part of the caption, for sections that follow one with the whole caption."""
        return f"Scores: {self.split} split. {_WARNINGS[self.describes]}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the report. Each field is a function of the sweep, or None if the section has no such part.

    text: the section's Markdown; "" leaves the section out.
    rows: the tidy table of its CSV file; None writes no file.
    tables: its tables as shown, by the name of their LaTeX file.
    provenance: where its scores come from; required if the section shows scores.
    """

    text: Callable[[AnalyzedSweep], str] | None = None
    rows: Callable[[AnalyzedSweep], pd.DataFrame | None] | None = None
    tables: Callable[[AnalyzedSweep], Mapping[str, Table]] | None = None
    provenance: Callable[[AnalyzedSweep], Provenance] | None = None


def results_provenance(sweep: AnalyzedSweep) -> Provenance:
    """The provenance of scores of finals on the test split."""
    budget = sweep.manifest.budget
    return Provenance(
        split="test",
        selected_on="validation",
        describes="results",
        rule=f"per {unit(budget)}, the configuration with the best epoch's score on the validation split{mean_of(budget)}",
        seeds=f"{budget.final_seeds} per {unit(budget)}, not used in the search",
        tries=_tries(sweep),
    )


def search_provenance(sweep: AnalyzedSweep) -> Provenance:
    """The provenance of scores of the search on the validation split."""
    budget = sweep.manifest.budget
    one = budget.search_seeds == 1
    return Provenance(
        split="validation",
        selected_on="validation",
        describes="search",
        rule=f"the best epoch of each trial, the best {'trial' if one else 'configuration'} of each {unit(budget)}"
        f"{mean_of(budget)}",
        seeds="one, the same for every trial" if one else f"{budget.search_seeds}, the same for every configuration",
        tries=_tries(sweep),
    )


def most(budget: Budget) -> str:
    """The largest number of configurations that a cell may try, as text. A cell with a smaller grid tries all of its points."""
    return "one configuration" if budget.trials == 1 else f"up to {budget.trials} configurations"


def unit(budget: Budget) -> str:
    """What one winner is chosen for: a cell, or a search if cells have several."""
    return "search" if budget.searches > 1 else "cell"


def several(budget: Budget) -> str:
    """ ", k searches per cell" if cells have several, else ""."""
    return f", {budget.searches} searches per cell" if budget.searches > 1 else ""


def varied(budget: Budget) -> str:
    """What differences between methods hold for, given what was repeated, as a part of a sentence."""
    return f"over {budget.searches} searches per cell" if budget.searches > 1 else "for the configurations found"


def mean_of(budget: Budget) -> str:
    """ ", mean over n seeds" if the search uses several seeds, else ""."""
    return f", mean over {budget.search_seeds} seeds" if budget.search_seeds > 1 else ""


def ablation_provenance(sweep: AnalyzedSweep) -> Provenance:
    """The provenance of validation scores of finals, measured after their method was removed from layers."""
    return replace(results_provenance(sweep), split="validation", describes="removal")


def _tries(sweep: AnalyzedSweep) -> str:
    """How many configurations each cell tried, as text for the caption."""
    if not sweep.curtailed:
        return f"{most(sweep.manifest.budget)} per {unit(sweep.manifest.budget)}{several(sweep.manifest.budget)}"
    found = sweep.configurations["cell"].value_counts()
    each = [int(found.get(str(cell), 0)) for cell in sweep.manifest.cells]
    fewest, spent = min(each), max(each)
    tried = plural(spent, "configuration") if fewest == spent else f"{fewest} to {spent} configurations"
    return f"{tried} per cell, until a time budget ended the searches"


def caption(provenance: Provenance) -> Markup:
    """The provenance as a Markdown paragraph in italics."""
    return Markup(f"*{provenance.caption}*")
