"""Writes every figure of a sweep as a PNG and an SVG file. The same numbers give files with the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from reports.plots import FIGURES
from reports.statistics.analysis import AnalyzedSweep

# A fixed salt gives the ids in SVG files the same values in every build. A dollar sign in a title does not start a formula.
STYLE: dict[Any, Any] = {"svg.hashsalt": "reports", "text.parse_math": False}
_DPI = 160
_FAST: Any = {"compress_level": 3}  # larger files, in less time


def write(sweep: AnalyzedSweep, folder: Path) -> list[Path]:
    """Draw every figure and save it in the folder; return the paths of all files."""
    files = []
    with mpl.rc_context(STYLE):
        for entry in (entry for list_figures in FIGURES.values() for entry in list_figures(sweep)):
            figure = entry.draw()
            # No date and no version of Matplotlib: they would make the bytes differ between builds.
            figure.savefig(folder / f"{entry.name}.png", dpi=_DPI, metadata={"Software": None}, pil_kwargs=_FAST)
            figure.savefig(folder / f"{entry.name}.svg", metadata={"Date": None, "Creator": None})
            files += [folder / f"{entry.name}.png", folder / f"{entry.name}.svg"]
    return files
