"""The numbers of parameters that each method trains, counted in three ways, one table per model."""

from __future__ import annotations

from collections.abc import Sequence

from reports.data.cells import winner_counts
from reports.data.manifest import Manifest
from reports.data.papers import nominal_percent, paper_of
from reports.plots.method_styles import methods_by_family
from reports.render.markdown import MISSING, Markup, count, escape, paragraphs, shares
from reports.render.table import Table
from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep


def text(sweep: AnalyzedSweep) -> str:
    shown = tables(sweep)
    parts = ["## Trainable parameters"]
    for number, facts in enumerate(sweep.manifest.models.values(), start=1):
        parts += [
            f"On {escape(facts.title)}; {count(facts.total)} are 100 %:",
            shown[f"parameters_{number}"].markdown(),
        ]
    return paragraphs(*parts, _counting(sweep.manifest))


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """The tables "parameters_n", n = 1, 2, ... being the number of the model in the manifest's order."""
    return {f"parameters_{n}": _parameters(sweep, model) for n, model in enumerate(sweep.manifest.models, start=1)}


def _parameters(sweep: AnalyzedSweep, model: str) -> Table:
    """The table of trained parameters of one model, counted in three ways (see `_counting`)."""
    manifest = sweep.manifest
    header = ["Method", "Module weights", "With biases", "Everything trained"]
    nominal = {label: nominal_percent(manifest, label) for label in manifest.methods}
    if any(nominal.values()):
        header.append("Nominal #P (paper)")
    lines = []
    for label in methods_by_family(sweep, model):
        counts = winner_counts(sweep.results, model, label)
        ways = [sorted({getattr(one, way) for one in counts}) for way in ("weights", "module", "trained")]
        cells = [_span(values, manifest.models[model].total) for values in ways]
        lines.append([manifest.methods[label].title, *cells, *([nominal[label] or MISSING] if len(header) > 4 else [])])
    facts = manifest.models[model]
    table_caption = f"Trainable parameters on {escape(facts.title)}; {count(facts.total)} are 100 %."
    return Table(header=header, rows=lines, align="l" + "r" * (len(header) - 1), caption=Markup(table_caption))


def _span(values: Sequence[int], total: int) -> str:
    """Ascending parameter counts as text, with their share of the backbone's `total`: one count, or smallest and largest."""
    if not values:
        return MISSING
    span = count(values[0]) + (f" to {count(values[-1])}" if values[0] != values[-1] else "")
    return f"{span} ({shares(values, total)})"


def _counting(manifest: Manifest) -> str:
    """The explanation of the columns of the tables."""
    legend = (
        "*Module weights*: the matrices that the method adds or, in full fine-tuning, updates, without pruned entries; "
        "*everything trained*: LayerNorms and task head included. A span: winners or heads of different tasks differ in size."
    )
    paper = paper_of(manifest)
    if paper and any(nominal_percent(manifest, label) for label in manifest.methods):
        known = f"; {paper.shares}" if paper.shares else ""
        legend += f" *Nominal #P* is the share printed in the paper, for its settings and its encoders{known}."
    return legend


SECTION = Section(text=text, tables=tables)
