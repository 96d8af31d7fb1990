"""The numbers that a paper published for the experiment that a space repeats, beside those of the sweep.

Every row of the tables names the model that it was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import pandas as pd

from reports.data.cells import final_values, winner_counts
from reports.data.manifest import Manifest, MethodFacts
from reports.data.papers import EVERY, SECONDS, Paper, PaperColumn, PaperRow, PaperScore, PaperTable, paper_of
from reports.render.markdown import MISSING, Markup, escape, paragraphs, points, shares
from reports.render.table import Table
from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell


def text(sweep: AnalyzedSweep) -> str:
    paper = paper_of(sweep.manifest)
    if paper is None:
        return ""
    shown = tables(sweep)
    return paragraphs(
        "## The paper's own numbers",
        f"{paper.source}. Transcribed, not measured here; ↳ marks what this sweep measured.",
        _warning(sweep.manifest, paper),
        _unstated(sweep.manifest, paper),
        "*#P* in the rows measured here is the share of module weights, the first count under *Trainable parameters*."
        if any(t.has_shares for t in paper.tables)
        else "",
        *(part for t in paper.tables for part in (f"{_title(t)}:", shown[f"paper_{t.name}"].markdown())),
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """The tables "paper_<name>" of the paper whose experiment the sweep repeats; none if it repeats no known paper."""
    paper = paper_of(sweep.manifest)
    return {f"paper_{printed.name}": _table(sweep, paper, printed) for printed in paper.tables} if paper else {}


def _title(printed: PaperTable) -> str:
    return f"From the paper: {printed.title}, {printed.model}"


def _warning(manifest: Manifest, paper: Paper) -> str:
    """Why the paper's numbers and the sweep's may differ, with a warning if it has models that the paper does not have."""
    others = [escape(model.title) for name, model in manifest.models.items() if name not in paper.encoders]
    if not others:
        return paper.caution
    theirs = " and ".join(dict.fromkeys(paper.encoders.values()))
    return (
        f"{paper.caution} **Levels are not comparable for {', '.join(others)}**: the paper's numbers are those of {theirs}. Only "
        "whether methods differ in the same direction can be compared."
    )


def _unstated(manifest: Manifest, paper: Paper) -> str:
    """A sentence on settings that the paper does not state, if the sweep has methods with them; else ""."""
    names = {name for facts in manifest.methods.values() for name in paper.unstated.get(facts.name, ())}
    if not names:
        return ""
    return (
        f"The paper does not state {', '.join(f'`{name}`' for name in sorted(names))}, on which its claim may depend; the rows "
        "measured here name the value that was used."
    )


def _chosen(facts: MethodFacts, paper: Paper) -> str:
    """The row's values of the settings that the paper does not state, as " (mid_init = identity)"; "" if there are none."""
    told = []
    for name in paper.unstated.get(facts.name, ()):
        if f"{name} = " in facts.title:
            continue
        value = "searched" if name in facts.searched else facts.settings.get(name, "not recorded")
        told.append(f"{name} = {value}")
    return f" ({', '.join(told)})" if told else ""


def _table(sweep: AnalyzedSweep, paper: Paper, printed: PaperTable) -> Table:
    """A published table: each of its rows is followed by the sweep's results of the same method and settings.

    Results of the same methods with settings that the published table does not have come last.
    """
    models = paper.models_beside(printed, sweep.manifest)
    left = {label for label, facts in sweep.manifest.methods.items() if facts.name in {r.method for r in printed.rows}}
    lines: list[list[object]] = []
    for row in printed.rows:
        share = [f"{row.percent:.1f} %" if row.percent is not None else MISSING] if printed.has_shares else []
        lines.append([row.title, printed.model, *share, *_printed_scores(printed, row)])
        same = [label for label, facts in sweep.manifest.methods.items() if printed.has(row, facts)]
        lines += _measured(sweep, paper, printed, models, same, "measured here")
        left -= set(same)
    rest = [label for label in sweep.manifest.methods if label in left]
    lines += _measured(sweep, paper, printed, models, rest, "measured here, not in the paper")
    average = ["Average"] if printed.average else []
    header = ["Method", "Model", *(["#P"] if printed.has_shares else []), *(c.title for c in printed.columns), *average]
    table_caption = Markup(f"{escape(_title(printed))}: transcribed, not measured here, beside what was measured here.")
    return Table(header=header, rows=lines, align="ll" + "r" * (len(header) - 2), caption=table_caption)


def _printed_scores(printed: PaperTable, row: PaperRow) -> list[str]:
    """The scores of a published row as text, with their mean if the table gets a column for it."""
    means = [score.mean for score in row.scores if score.mean is not None]
    return [*map(_shown, row.scores), *([points(fmean(means))] if printed.average else [])]


def _shown(score: PaperScore) -> str:
    """A score as text: mean ± standard deviation, with a second digit for deviations below 0.05; or the words printed instead."""
    if score.words:
        return score.words
    digits = 2 if score.std is not None and 0 < score.std < 0.05 else 1
    return points(score.mean) + (f" ± {score.std:.{digits}f}" if score.std is not None else "")


def _measured(
    sweep: AnalyzedSweep,
    paper: Paper,
    printed: PaperTable,
    models: Sequence[str],
    labels: Sequence[str],
    what: str,
) -> list[list[object]]:
    """Table rows with the sweep's results of these models and methods (`labels`), marked by `what`.

    A method without a result in any column is left out.
    """
    lines: list[list[object]] = []
    for model in models:
        for label in labels:
            scores = [_score(sweep, column, model, label) for column in printed.columns]
            means = [score.mean for score in scores if score.mean is not None]
            average = [points(fmean(means)) if len(means) == len(scores) else MISSING] if printed.average else []
            facts = sweep.manifest.methods[label]
            title = Markup(f"↳ *{what}: {escape(facts.title + _chosen(facts, paper))}*")
            share = [_share(sweep, model, label)] if printed.has_shares else []
            if means:
                lines.append([title, sweep.manifest.models[model].title, *share, *map(_shown, scores), *average])
    return lines


def _share(sweep: AnalyzedSweep, model: str, label: str) -> str:
    """Module weights of the method's winners as a share of the model's parameters; a range if the winners differ."""
    weights = [counts.weights for counts in winner_counts(sweep.results, model, label)]
    return shares(weights, sweep.manifest.models[model].total)


def _score(sweep: AnalyzedSweep, column: PaperColumn, model: str, label: str) -> PaperScore:
    """The sweep's value for this column: mean and sample standard deviation over the finals of one cell.

    A column for all tasks has the mean over the tasks, without a deviation; it is empty if a task has no result.
    """
    results = sweep.results
    if column.task == EVERY:
        cells = [Cell(model=model, task=task, method=label) for task in sweep.manifest.tasks]
        means = [_mean(sweep, cell, column.metric) if column.metric else results[cell].mean for cell in cells]
        known = [mean for mean in means if mean is not None]
        return PaperScore(mean=fmean(known)) if known and len(known) == len(means) else PaperScore()
    cell = Cell(model=model, task=column.task, method=label)
    values = _values(sweep.finals.get(cell), column.metric)
    return PaperScore(mean=fmean(values) if values else None, std=stdev(values) if len(values) > 1 else None)


def _mean(sweep: AnalyzedSweep, cell: Cell, metric: str) -> float | None:
    """Mean of a metric over the cell's finals; None without a value."""
    values = _values(sweep.finals.get(cell), metric)
    return fmean(values) if values else None


def _values(finals: pd.DataFrame | None, metric: str) -> list[float]:
    """One value per completed final: a metric on the test split, or seconds per epoch; [] without finals."""
    if finals is None:
        return []
    if metric != SECONDS:
        return list(final_values(finals, metric))
    done = finals[finals["state"] == "DONE"]
    return [value for value in done["seconds"] / done["epochs"] if math.isfinite(value)]


SECTION = Section(text=text, tables=tables)
