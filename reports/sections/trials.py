"""The CSV file with one row per trial; the summary does not list trials."""

from __future__ import annotations

import pandas as pd

from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per trial, columns as in `reports/data/trial_table.py`; hyperparameters are numbers if all of a column are."""
    table = sweep.trials.copy()
    for name in table.columns:
        if pd.api.types.is_string_dtype(table[name]) and name.startswith("param."):
            numbers = pd.to_numeric(table[name], errors="coerce")
            if (numbers.isna() == table[name].isna()).all():
                table[name] = numbers
    return table


SECTION = Section(rows=rows)
