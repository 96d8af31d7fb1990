"""A stored sweep together with all values that the report derives from it.

Sections, figures and the comparison of sweeps take these values from an `AnalyzedSweep`, so that each is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from reports.data import ablation_scores, cells, configurations, spending
from reports.data.ablation_scores import AblationScores
from reports.data.cells import CellResult
from reports.data.store import StoredSweep
from reports.data.trial_table import by_cell
from reports.statistics import expected_best, standings
from reports.statistics.standings import ColumnEstimates, Standing
from search_spaces.language import Cell


@dataclass(frozen=True, kw_only=True, eq=False)
class AnalyzedSweep(StoredSweep):
    """A stored sweep whose derived values are computed at first use and then cached. Callers must not modify the tables."""

    @cached_property
    def results(self) -> Mapping[Cell, CellResult]:
        """Test scores of the finals, failures and progress of every cell.

        Raises ValueError if a search trial has a test score; see `reports.data.cells.collect_results`.
        """
        return cells.collect_results(self)

    @cached_property
    def finals(self) -> Mapping[Cell, pd.DataFrame]:
        """The finals of every cell, one row each; `reports/data/trial_table.py` lists the columns."""
        return by_cell(self.manifest, self.trials[self.trials["phase"] == "final"])

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """One row per configuration of the search; see `reports.data.configurations.configurations`."""
        return configurations.configurations(self)

    @cached_property
    def winning_trials(self) -> set[str]:
        """Ids of all search trials of the winning configurations, one trial per search seed."""
        return configurations.winning_trials(self.configurations, self.winners)

    @cached_property
    def spending(self) -> pd.DataFrame:
        """One row per cell: numbers of trials, epochs and hours; see `reports.data.spending.spending`."""
        return spending.spending(self)

    @cached_property
    def ablation_scores(self) -> Mapping[Cell, AblationScores | None]:
        """Validation scores with the method removed from spans of layers, for every cell whose method row has `ablated` set; None
        while no final of the cell has them.
        """
        return ablation_scores.collect_ablations(self)

    @cached_property
    def columns(self) -> Mapping[tuple[str, str], ColumnEstimates]:
        """Estimates of the method rows' mean test scores and of their differences, by model and task."""
        return standings.estimate_columns(self, self.results)

    @cached_property
    def standings(self) -> Mapping[Cell, Standing]:
        """Comparison of every cell that has a test score with the other method rows of its model and task."""
        return standings.task_standings(self.columns)

    @cached_property
    def average_standings(self) -> Mapping[str, Mapping[str, Standing]]:
        """By model and label: comparison of the mean over tasks, for method rows that have a score on every task."""
        return {
            model: standings.average_standings(self.manifest, self.columns, model) for model in self.manifest.models
        }

    @cached_property
    def expected_best(self) -> Mapping[Cell, list[float]]:
        """Expected best validation score of each cell after k = 1, 2, ... configurations, percent points; see
        `reports.statistics.expected_best.curves`.
        """
        return expected_best.curves(self.configurations)

    @property
    def interval_coverage(self) -> str:
        """Text for captions: whether the intervals of means cover variation over seeds only, or over test examples, too."""
        return standings.interval_coverage(self.standings.values(), self.manifest.budget.searches)


def analyze(stored: StoredSweep) -> AnalyzedSweep:
    """Return the sweep as an `AnalyzedSweep`; nothing is computed yet."""
    return AnalyzedSweep(**vars(stored))
