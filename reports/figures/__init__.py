"""The figures of the report: one file and one line each.

A figure's file collects its numbers (`rows`) apart from drawing them (`draw`), and lists its sheets (`sheets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from reports.cells import CellResult, collect
from reports.figures import curves, efficiency, search, settings, tries
from reports.sheet import Sheet
from reports.store import Sweep
from search_spaces.language import Cell

FIGURES: dict[str, Callable[[Sweep, Mapping[Cell, CellResult]], list[Sheet]]] = {
    "efficiency": efficiency.sheets,
    "settings": settings.sheets,
    "tries": tries.sheets,
    "search": search.sheets,
    "curves": curves.sheets,
}

# The salt keeps the SVG's ids from changing from build to build; a foreign title with dollar signs is no mathematics.
STYLE: dict[Any, Any] = {"svg.hashsalt": "reports", "text.parse_math": False}
_DPI = 160
_FAST: Any = {"compress_level": 3}  # a tenth larger than the default and twice as fast


def write(sweep: Sweep, folder: Path) -> list[Path]:
    """Draw every figure into the folder, as PNG and as SVG; returns the files."""
    results = collect(sweep)
    files = []
    with mpl.rc_context(STYLE):
        for sheet in (sheet for kind in FIGURES.values() for sheet in kind(sweep, results)):
            figure = sheet.draw()
            # Without a date the same numbers give the same bytes.
            figure.savefig(folder / f"{sheet.name}.png", dpi=_DPI, metadata={"Software": None}, pil_kwargs=_FAST)
            figure.savefig(folder / f"{sheet.name}.svg", metadata={"Date": None, "Creator": None})
            files += [folder / f"{sheet.name}.png", folder / f"{sheet.name}.svg"]
    return files
