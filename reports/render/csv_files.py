"""Writes CSV files without texts that a spreadsheet program would run as formulas."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

# A cell that starts with one of these is a formula, or can become one, in spreadsheet programs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Counts, which pandas turns into decimal numbers as soon as one is missing.
_WHOLE = ("weights", "module", "trained", "total", "stored", "bytes", "saved_bytes", "epochs", "best_epoch", "ties")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table as UTF-8 CSV; texts that could be formulas get an apostrophe in front, numbers stay numbers."""
    safe = table.rename(columns=escape_formula)
    safe = safe.astype({name: "Int64" for name in _WHOLE if name in safe})
    for position in range(safe.shape[1]):
        column = safe.iloc[:, position]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            safe.isetitem(position, column.map(escape_formula))
    # A carriage return inside a text is not among the signs that make pandas quote it, and would end the line.
    safe.to_csv(path, index=False, lineterminator="\n", encoding="utf-8", quoting=csv.QUOTE_NONNUMERIC)


def escape_formula(value: object) -> object:
    """Return the value, with an apostrophe in front of a text that a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
