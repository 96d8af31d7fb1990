"""A stored sweep together with all values that the report derives from it.

Sections, figures and the comparison of sweeps receive one `AnalyzedSweep` and compute nothing of this themselves.
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
    """A stored sweep whose derived values are computed at their first use and then kept. Do not modify the tables."""

    @cached_property
    def results(self) -> Mapping[Cell, CellResult]:
        """The test scores of every cell; see `reports.data.cells.collect_results`, also for what it raises."""
        return cells.collect_results(self)

    @cached_property
    def finals(self) -> Mapping[Cell, pd.DataFrame]:
        """The finals of every cell, one row each, columns as in `reports/data/trial_table.py`."""
        return by_cell(self.manifest, self.trials[self.trials["phase"] == "final"])

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """One row per configuration of the search; see `reports.data.configurations.configurations`."""
        return configurations.configurations(self)

    @cached_property
    def winning_trials(self) -> set[str]:
        """Ids of all trials of the configurations that won."""
        return configurations.winning_trials(self.configurations, self.winners)

    @cached_property
    def spending(self) -> pd.DataFrame:
        """One row per cell: numbers of trials, epochs and hours; see `reports.data.spending.spending`."""
        return spending.spending(self)

    @cached_property
    def ablation_scores(self) -> Mapping[Cell, AblationScores | None]:
        """Scores with the method removed from layers, for the cells with `ablated`; None while no final has them."""
        return ablation_scores.collect_ablations(self)

    @cached_property
    def columns(self) -> Mapping[tuple[str, str], ColumnEstimates]:
        """Estimates of the methods' means and differences, per model and task."""
        return standings.estimate_columns(self, self.results)

    @cached_property
    def standings(self) -> Mapping[Cell, Standing]:
        """Every cell that has a score, compared with the other methods of its model and task."""
        return standings.task_standings(self.columns)

    @cached_property
    def average_standings(self) -> Mapping[str, Mapping[str, Standing]]:
        """Per model: the methods that have a score on every task, compared by their unweighted mean over tasks."""
        return {
            model: standings.average_standings(self.manifest, self.columns, model) for model in self.manifest.models
        }

    @cached_property
    def expected_best(self) -> Mapping[Cell, list[float]]:
        """Expected best validation score after k configurations; see `reports.statistics.expected_best.curves`."""
        return expected_best.curves(self.configurations)

    @property
    def interval_coverage(self) -> str:
        """The source of variation that the intervals of this sweep's means cover, as text for captions."""
        return standings.interval_coverage(self.standings.values())


def analyze(stored: StoredSweep) -> AnalyzedSweep:
    """The sweep with its derived values, none of which is computed yet."""
    return AnalyzedSweep(**vars(stored))
