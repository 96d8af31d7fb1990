"""The figures of the report: one file and one line each.

A figure's file collects its numbers (`rows`) apart from drawing them (`draw`), and lists its sheets (`sheets`).
"""

from collections.abc import Callable

from reports.plots import ablation_map, curves, efficiency_curves, search_history, settings, tries
from reports.plots.figure_pages import Sheet
from reports.statistics.analysis import AnalyzedSweep

FIGURES: dict[str, Callable[[AnalyzedSweep], list[Sheet]]] = {
    "efficiency": efficiency_curves.sheets,
    "settings": settings.sheets,
    "ablation": ablation_map.sheets,
    "tries": tries.sheets,
    "search": search_history.sheets,
    "curves": curves.sheets,
}
