"""Writes every figure of a sweep, as PNG and as SVG: the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from reports.plots import FIGURES
from reports.statistics.analysis import AnalyzedSweep

# The salt keeps the SVG's ids from changing from build to build; a foreign title with dollar signs is no mathematics.
STYLE: dict[Any, Any] = {"svg.hashsalt": "reports", "text.parse_math": False}
_DPI = 160
_FAST: Any = {"compress_level": 3}  # larger files, in less time


def write(sweep: AnalyzedSweep, folder: Path) -> list[Path]:
    """Draw every figure into the folder; returns the files."""
    files = []
    with mpl.rc_context(STYLE):
        for sheet in (sheet for kind in FIGURES.values() for sheet in kind(sweep)):
            figure = sheet.draw()
            # Without a date and a version.
            figure.savefig(folder / f"{sheet.name}.png", dpi=_DPI, metadata={"Software": None}, pil_kwargs=_FAST)
            figure.savefig(folder / f"{sheet.name}.svg", metadata={"Date": None, "Creator": None})
            files += [folder / f"{sheet.name}.png", folder / f"{sheet.name}.svg"]
    return files
