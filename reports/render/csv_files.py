"""Writes CSV files in which no text can be run as a formula by a spreadsheet program."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from search_spaces.redaction import printable

# A cell that starts with one of these is a formula, or can become one, in spreadsheet programs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Columns with integers, which pandas converts to floats if a value is missing.
_WHOLE = (
    "weights",
    "module",
    "trained",
    "total",
    "active",
    "stored_bytes",
    "saved_bytes",
    "epochs",
    "best_epoch",
    "ties",
)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table as a UTF-8 CSV file; texts and column names that could be formulas are prefixed with an apostrophe."""
    safe = table.rename(columns=escape_formula)
    safe = safe.astype({name: "Int64" for name in _WHOLE if name in safe})
    for position in range(safe.shape[1]):
        column = safe.iloc[:, position]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            safe.isetitem(position, column.map(escape_formula))
    # All texts are quoted: pandas would not quote one because of a carriage return, which would then end the line.
    safe.to_csv(path, index=False, lineterminator="\n", encoding="utf-8", quoting=csv.QUOTE_NONNUMERIC)


def escape_formula(value: object) -> object:
    """Return the value; a text without control characters, and after an apostrophe if a spreadsheet program could run it as a
    formula.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) or value.startswith(_FORMULA) else text
