"""The section with figures of test scores against parameters and against numeric settings of a method."""

from __future__ import annotations

from reports.plots import FIGURES
from reports.render.markdown import Markup, escape, paragraphs, plural
from reports.sections.section import Section, results_provenance
from reports.statistics.analysis import AnalyzedSweep


def text(sweep: AnalyzedSweep) -> str:
    settings = images(sweep, "settings")
    return paragraphs(
        "## Parameter efficiency",
        *images(sweep, "efficiency"),
        f"{results_provenance(sweep).reminder} Mean of the finals against the number of trained parameters (logarithmic axis), "
        f"and against active and stored ones (see *Cost*) where these differ. Vertical lines: {sweep.interval_coverage}; hollow: "
        "one final, no interval. A dashed Pareto front is drawn where a larger method is significantly better than a smaller one "
        "(grey: its interval).",
        _missing(sweep),
        "Score against a setting, for rows of one method that differ in it alone:" if settings else "",
        *settings,
    )


def images(sweep: AnalyzedSweep, kind: str) -> list[Markup]:
    """Markdown of the figures of one kind, a key of `FIGURES`: each is shown as its PNG file and links to its SVG file."""
    return [
        Markup(f"[![{escape(figure.alt)}](figures/{figure.name}.png)](figures/{figure.name}.svg)")
        for figure in FIGURES[kind](sweep)
    ]


def _missing(sweep: AnalyzedSweep) -> str:
    """A sentence that names the cells without a result, which the figures leave out; "" if there are none."""
    left = [result for result in sweep.results.values() if result.mean is None]
    named = "; ".join(f"{result.cell} ({result.progress})" for result in left[:12])
    more = f"; {len(left) - 12} more" if len(left) > 12 else ""
    return f"{plural(len(left), 'cell')} without a result: {escape(named)}{more}." if left else ""


SECTION = Section(text=text, provenance=results_provenance)
