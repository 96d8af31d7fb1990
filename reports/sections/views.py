"""The figures of the search in each cell: scores by learning rate, and learning curves."""

from __future__ import annotations

from reports.render.markdown import paragraphs
from reports.sections.efficiency import images
from reports.sections.section import Section, search_provenance
from reports.statistics.analysis import AnalyzedSweep


def text(sweep: AnalyzedSweep) -> str:
    rates = (
        "### Scores by learning rate",
        *images(sweep, "search"),
        "Each trial of the search at its best epoch. Shaded: outside the searched range. If the winner is next to the "
        "shaded area, a wider range may hold a better value.",
    )
    return paragraphs(
        *(rates if sweep.manifest.searches else ()),
        "### Learning curves",
        *images(sweep, "curves"),
        "Validation score after every epoch: search trials thin, finals bold. A final that runs apart from the others of its "
        "cell is a seed that behaves differently. The lowest scores are cut off.",
    )


SECTION = Section(text=text, provenance=search_provenance)
