"""Score against trained parameters: refers to the figure of each model, which `reports/figures.py` draws."""

from __future__ import annotations

from reports.figures import figure_name
from reports.markdown import Markup, escape, paragraphs
from reports.section import Section
from reports.store import Sweep


def text(sweep: Sweep) -> str:
    figures = []
    for model, facts in sweep.manifest.models.items():
        name = figure_name(model)
        title = escape(facts.title)
        figures.append(
            Markup(
                f"![Scores on {title} against trained parameters](figures/{name}.png)\n\n[As SVG](figures/{name}.svg)"
            )
        )
    return paragraphs(
        "## Parameter efficiency",
        "Score against the number of trained parameters (logarithmic axis). Upper panels: every trial of the search at its best "
        "epoch on the validation split, hollow when ASHA stopped it. Lower panels: finals on the test split, mean ± sample "
        "standard deviation. The splits differ, so upper and lower panels must not be compared point by point.",
        *figures,
    )


SECTION = Section(text=text)
