"""The sections of the report, in the order in which it shows them.

Each section is one file of this folder and one entry of `SECTIONS`, whose key also names the section's CSV file.
"""

from reports.sections import (
    ablation,
    budget,
    cost,
    differences,
    efficiency,
    overview,
    paper,
    results,
    search_quality,
    trace,
    trials,
    views,
    winners,
)
from reports.sections.section import Section

SECTIONS: dict[str, Section] = {
    "overview": overview.SECTION,
    "results": results.SECTION,
    "differences": differences.SECTION,
    "efficiency": efficiency.SECTION,
    "ablation": ablation.SECTION,
    "cost": cost.SECTION,
    "paper": paper.SECTION,
    "winners": winners.SECTION,
    "search": search_quality.SECTION,
    "views": views.SECTION,
    "budget": budget.SECTION,
    "trace": trace.SECTION,
    "trials": trials.SECTION,
}
