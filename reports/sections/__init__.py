"""The sections of the report in their order: one file and one line each. A section's CSV has its name."""

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
