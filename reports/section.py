"""What a section of the report is: text for the summary, rows for a CSV file, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from reports.store import Sweep


@dataclass(frozen=True, kw_only=True)
class Section:
    """`text` returns the section's Markdown, "" when it has nothing to say; `rows` the table of its CSV file."""

    text: Callable[[Sweep], str] | None = None
    rows: Callable[[Sweep], pd.DataFrame] | None = None
