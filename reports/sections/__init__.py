"""The sections of the report in their order: one file and one line each. A section's CSV has its name."""

from reports.section import Section
from reports.sections import budget, efficiency, overview, paper, reproduce, results, search, trials, winners

SECTIONS: dict[str, Section] = {
    "overview": overview.SECTION,
    "results": results.SECTION,
    "efficiency": efficiency.SECTION,
    "paper": paper.SECTION,
    "winners": winners.SECTION,
    "search": search.SECTION,
    "budget": budget.SECTION,
    "reproduce": reproduce.SECTION,
    "trials": trials.SECTION,
}
