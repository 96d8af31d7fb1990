"""Writes every figure of a sweep, as PNG and as SVG: the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from reports.plots import FIGURES
from reports.statistics.analysis import AnalyzedSweep

# The salt keeps the ids in SVG files equal from build to build. Dollar signs in a title are not mathematics.
STYLE: dict[Any, Any] = {"svg.hashsalt": "reports", "text.parse_math": False}
_DPI = 160
_FAST: Any = {"compress_level": 3}  # larger files, in less time


def write(sweep: AnalyzedSweep, folder: Path) -> list[Path]:
    """Draw every figure into the folder; returns the files."""
    files = []
    with mpl.rc_context(STYLE):
        for entry in (entry for list_figures in FIGURES.values() for entry in list_figures(sweep)):
            figure = entry.draw()
            # Without a date and a version.
            figure.savefig(folder / f"{entry.name}.png", dpi=_DPI, metadata={"Software": None}, pil_kwargs=_FAST)
            figure.savefig(folder / f"{entry.name}.svg", metadata={"Date": None, "Creator": None})
            files += [folder / f"{entry.name}.png", folder / f"{entry.name}.svg"]
    return files
