"""What happened inside each cell: which learning rates won, and every learning curve. Refers to the figures."""

from __future__ import annotations

from reports.render.markdown import paragraphs
from reports.sections.efficiency import images
from reports.sections.section import Section, caption, search_provenance
from reports.statistics.analysis import AnalyzedSweep


def text(sweep: AnalyzedSweep) -> str:
    rates = (
        "### Which learning rate won where",
        "Each trial of the search at its best epoch. Shaded: outside the searched range. A winner beside the shade asks for "
        "a wider range.",
        *images(sweep, "search"),
    )
    return paragraphs(
        "## The search in pictures",
        caption(search_provenance(sweep)),
        *(rates if sweep.manifest.searches else ()),
        "### Learning curves",
        "Validation score after every epoch: search trials thin, finals bold. A final that runs apart from the others of its "
        "cell is a seed that behaves differently. The lowest scores are cut off.",
        *images(sweep, "curves"),
    )


SECTION = Section(text=text, provenance=search_provenance)
