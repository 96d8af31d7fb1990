"""The figures of the report: one file and one line each.

A figure's file collects its numbers (`rows`) apart from drawing them (`draw`), and lists its sheets (`sheets`).
"""

from collections.abc import Callable, Mapping

from reports.cells import CellResult
from reports.plots import ablation, curves, efficiency, search, settings, tries
from reports.sheet import Sheet
from reports.store import Sweep
from search_spaces.language import Cell

FIGURES: dict[str, Callable[[Sweep, Mapping[Cell, CellResult]], list[Sheet]]] = {
    "efficiency": efficiency.sheets,
    "settings": settings.sheets,
    "ablation": ablation.sheets,
    "tries": tries.sheets,
    "search": search.sheets,
    "curves": curves.sheets,
}
