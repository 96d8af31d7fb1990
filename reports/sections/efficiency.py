"""The section with figures of test scores against parameters and against numeric settings of a method."""

from __future__ import annotations

from reports.plots import FIGURES
from reports.render.markdown import Markup, escape, paragraphs, plural
from reports.sections.section import Section, caption, results_provenance
from reports.statistics.analysis import AnalyzedSweep


def text(sweep: AnalyzedSweep) -> str:
    settings = images(sweep, "settings")
    return paragraphs(
        "## Parameter efficiency",
        caption(results_provenance(sweep)),
        "Mean test score of the finals against the number of trained parameters (logarithmic axis), and against active and "
        "stored parameters where these differ from the trained ones (defined under *Cost*). Colour and marker: the "
        f"method's family. Vertical lines: {sweep.interval_coverage}, cut where they leave the panel; hollow: one final, no "
        "interval. The dashed Pareto front starts at the smallest method and rises only to a method whose difference to the "
        "front so far is significant (grey: its interval), so a method above the line is not established as better than it.",
        _missing(sweep),
        *images(sweep, "efficiency"),
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
