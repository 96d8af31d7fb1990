"""Every trial as one row of a CSV file; the summary does not list them."""

from __future__ import annotations

import pandas as pd

from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """The tidy table, hyperparameters as numbers where the whole column is numeric."""
    table = sweep.trials.copy()
    for name in table.columns:
        if pd.api.types.is_string_dtype(table[name]) and name.startswith("param."):
            numbers = pd.to_numeric(table[name], errors="coerce")
            if (numbers.isna() == table[name].isna()).all():
                table[name] = numbers
    return table


SECTION = Section(rows=rows)
