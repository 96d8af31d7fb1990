"""How the search went: what its budget bought, which learning rates won, and every learning curve. Refers to the figures."""

from __future__ import annotations

from reports.markdown import paragraphs
from reports.section import Section
from reports.sections.efficiency import images
from reports.store import Sweep


def text(sweep: Sweep) -> str:
    return paragraphs(
        "## The search in pictures",
        "Scores of this section are validation scores of single seeds, selected among many: no results.",
        "### What a budget buys",
        "Expected best validation score of a search that had tried n of the configurations: the mean over all orders of the "
        "tries, drawn without repetition. A curve that still rises at its end says that a larger budget would have helped. A "
        "marker: the whole budget is used. Tries that ended without a score are left out; one that ASHA stopped counts with its "
        "best epoch.",
        *images(sweep, "tries"),
        "### Which learning rate won where",
        "Each trial of the search at its best epoch. Shaded: outside the searched range. A winner beside the shade asks for "
        "a wider range.",
        *images(sweep, "search"),
        "### Learning curves",
        "Validation score after every epoch: search trials thin, finals bold. A final that runs apart from the others of its "
        "cell is a seed that behaves differently. The lowest scores are cut off.",
        *images(sweep, "curves"),
    )


SECTION = Section(text=text)
