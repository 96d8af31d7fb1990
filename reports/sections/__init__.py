"""The sections of the report, in the order in which it shows them.

Each section is one file of this folder and one entry of `SECTIONS`, whose key also names the section's CSV file.
"""

from reports.sections import (
    ablation,
    answer,
    budget,
    cost,
    differences,
    efficiency,
    front,
    paper,
    parameters,
    protocol,
    results,
    search_quality,
    trace,
    trials,
    views,
    winners,
)
from reports.sections.section import Section

SECTIONS: dict[str, Section] = {
    "answer": answer.SECTION,
    "results": results.SECTION,
    "efficiency": efficiency.SECTION,
    "differences": differences.SECTION,
    "ablation": ablation.SECTION,
    "paper": paper.SECTION,
    "cost": cost.SECTION,
    "parameters": parameters.SECTION,
    "winners": winners.SECTION,
    "front": front.SECTION,
    "search": search_quality.SECTION,
    "views": views.SECTION,
    "protocol": protocol.SECTION,
    "budget": budget.SECTION,
    "trace": trace.SECTION,
    "trials": trials.SECTION,
}
