"""The figures of the report: one file and one line each.

A figure's file collects its numbers (`rows`) apart from drawing them (`draw`), and lists the figures of a sweep (`figures`).
"""

from collections.abc import Callable

from reports.plots import ablation_map, curves, efficiency_curves, search_history, settings, tries
from reports.plots.figure_pages import ReportFigure
from reports.statistics.analysis import AnalyzedSweep

FIGURES: dict[str, Callable[[AnalyzedSweep], list[ReportFigure]]] = {
    "efficiency": efficiency_curves.figures,
    "settings": settings.figures,
    "ablation": ablation_map.figures,
    "tries": tries.figures,
    "search": search_history.figures,
    "curves": curves.figures,
}
