"""The figures of the report: each kind of figure is one file of this folder and one entry of `FIGURES`.

In such a file, `figures` lists the figures of a sweep, `draw` draws one of them, and `rows` collects the numbers that it draws.
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
