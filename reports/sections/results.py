"""The main results, one table of methods by tasks per model: test scores of finals (mean, standard deviation), and ties.

A second table per model has the numbers of parameters that each method trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from reports.data.cells import CellResult, final_values, winner_counts
from reports.data.manifest import Manifest
from reports.data.papers import nominal_percent, paper_of
from reports.plots.method_styles import methods_by_family
from reports.render.markdown import MISSING, Markup, bullets, count, escape, paragraphs, plural, points, shares
from reports.render.table import Table
from reports.sections.second_look import advice, ends_of
from reports.sections.section import Section, caption, results_provenance
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.collapse_rate import largest_plausible_rate
from reports.statistics.standings import Standing
from search_spaces.language import Budget, Cell

# Footnote marks of a cell, by their cause.
MARKS = {
    "collapsed": "†",
    "diverged": "‡",
    "incomplete": "§",
    "mixed": "¶",
    "constant": "▾",
    "edge": "⇥",
}


def text(sweep: AnalyzedSweep) -> str:
    shown = tables(sweep)
    parts = [
        "## Results on the test split",
        caption(results_provenance(sweep)),
        _claim(sweep.manifest.budget),
        _legend(sweep),
    ]
    for number, (model, facts) in enumerate(sweep.manifest.models.items(), start=1):
        parts += [
            f"### {escape(facts.title)}",
            shown[f"results_{number}"].markdown(),
            bullets(_footnotes(sweep, model)),
            _second_look(sweep, model),
            f"Trainable parameters on {escape(facts.title)}, {count(facts.total)} of which are 100 %:",
            shown[f"parameters_{number}"].markdown(),
        ]
    return paragraphs(*parts, _counting(sweep.manifest))


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    """Two tables per model, numbered n = 1, 2, ... in the manifest's order: "results_n" (scores) and "parameters_n"."""
    found = {}
    for number, model in enumerate(sweep.manifest.models, start=1):
        found[f"results_{number}"] = _scores(sweep, model)
        found[f"parameters_{number}"] = _parameters(sweep, model)
    return found


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per cell and test metric: mean, deviation and interval over the finals, and the cell's parameter counts.

    The interval (low, high) and the comparison (best, tied) are None for metrics other than the task's score.
    """
    results = sweep.results
    return pd.DataFrame(
        [
            _csv_row(sweep, result, metric, final_values(sweep.finals[cell], metric))
            for cell, result in results.items()
            for metric in dict.fromkeys(
                (sweep.manifest.tasks[cell.task].score, *sweep.manifest.tasks[cell.task].metrics)
            )
        ]
    )


def average(results: Sequence[CellResult]) -> float | None:
    """The unweighted mean over tasks of the mean test score over seeds, percent points; None if a task has no score."""
    means = [result.mean for result in results if result.mean is not None]
    return fmean(means) if len(means) == len(results) else None


def _claim(budget: Budget) -> str:
    """What the differences between methods hold for: what was repeated, and what was not."""
    if budget.searches > 1:
        return (
            f"**What was varied:** each cell was searched {budget.searches} times, each time with another validation split and "
            "other seeds. So differences between rows hold for the methods as they are searched here."
        )
    return (
        "**What was varied:** seeds and test examples. Each cell was searched once, so that differences hold *for the "
        "configurations found*, which another search may not find again: between identical methods, one search each shows a "
        "difference in 19 to 36 % of simulated columns (docs/statistics.md). `Budget(searches=3)` repeats the "
        "searches and compares methods."
    )


def _second_look(sweep: AnalyzedSweep, model: str) -> str:
    """What should be searched again before a row's result is read as its method's; "" if nothing."""
    found = advice(sweep, model)
    if not found:
        return ""
    return paragraphs(
        "**Search again before drawing conclusions about these methods:** a winner stands at the end of its range, or the mean "
        "is not above a constant prediction. The setting, not the method, may be what is weak.",
        bullets(found),
    )


def _legend(sweep: AnalyzedSweep) -> str:
    if sweep.manifest.budget.searches > 1:
        return _legend_of_searches(sweep.manifest.budget)
    n = sweep.manifest.budget.final_seeds
    spread = "mean ± sample standard deviation (n − 1)" if n > 1 else "one run, standard deviation n/a,"
    ties = (
        f"≈: tied with the column's best, which these {n} seeds and these test examples cannot tell apart from it "
        "(how it is tested: next section). ≈ says *cannot tell*, not *equal*: the last row of each table says how "
        "small a difference to the best could have been seen."
        if n > 1
        else "With a single seed no difference between methods can be judged."
    )
    collapses = (
        "*k of m collapsed*: so many finals give one constant prediction; the mean contains them, the notes below give the mean "
        f"of the others. Intervals and ties suppose that no further seed collapses. Without a collapse among {n} finals, "
        f"a seed may still collapse with a probability of up to {100 * largest_plausible_rate(0, n):.0f} % (exact 95 % bound). "
    )
    return (
        f"Percent points, higher is better: {spread} over the final seeds, n = {n} unless another n is given. **Bold**: best "
        f"mean of the column. {ties} {collapses}*Average* is the unweighted mean over tasks, given when every task has a result. "
        f"{MISSING}: no result."
    )


def _legend_of_searches(budget: Budget) -> str:
    k = budget.searches
    return (
        f"Percent points, higher is better: mean ± sample standard deviation (n − 1) of the {k} searches, each the mean of its "
        f"{plural(budget.final_seeds, 'final')}. **Bold**: best mean of the column. ≈: tied with the column's best, which these "
        f"{k} searches and these test examples cannot tell apart from it (how it is tested: next section). ≈ says *cannot tell*, "
        "not *equal*: the last row of each table says how small a difference to the best could have been seen. *Average* is the "
        f"unweighted mean over tasks, given when every task has a result. n: finals with a score, if not all have one. "
        f"{MISSING}: no result."
    )


def _scores(sweep: AnalyzedSweep, model: str) -> Table:
    """The table of test scores of one model: a row per method, then constant predictions and smallest visible differences."""
    manifest, results, judged = sweep.manifest, sweep.results, sweep.standings
    averages = sweep.average_standings[model]
    lines: list[list[object]] = []
    for label in methods_by_family(sweep, model):
        cells = [Cell(model=model, task=task, method=label) for task in manifest.tasks]
        shown = [_score(sweep, results[cell], judged.get(cell)) for cell in cells]
        lines.append([manifest.methods[label].title, *shown, _average(averages.get(label))])
    constants = [task.majority for task in manifest.tasks.values()]
    known = [value for value in constants if value is not None]
    mean = fmean(known) if len(known) == len(constants) else None
    lines.append([Markup("*Constant prediction*"), *map(points, constants), points(mean)])
    columns = [[s for cell, s in judged.items() if (cell.model, cell.task) == (model, task)] for task in manifest.tasks]
    if any(s.smallest_significant_gap for column in columns for s in column):
        seen = [smallest_seen(column) for column in (*columns, list(averages.values()))]
        lines.append([Markup("*Smallest visible difference*"), *seen])
    header = ["Method", *(f"{task.title} ({task.score_title})" for task in manifest.tasks.values()), "Average"]
    table_caption = (
        f"{escape(manifest.title)}, {escape(manifest.models[model].title)}: mean and sample standard deviation."
    )
    return Table(
        header=header,
        rows=lines,
        align="l" + "r" * (len(header) - 1),
        caption=Markup(f"{table_caption} {results_provenance(sweep).caption}"),
    )


def visible(difference: float | None) -> str:
    """A difference in percent points as text: "> 100" if it is larger than 100, `MISSING` for None."""
    return "> 100" if difference is not None and difference > 100 else points(difference)


def smallest_seen(column: Sequence[Standing]) -> str:
    """The smallest difference to the best that would have been significant, as text: the range over the column's methods."""
    found = sorted(s.smallest_significant_gap for s in column if s.smallest_significant_gap is not None)
    if not found:
        return MISSING
    low, high = visible(found[0]), visible(found[-1])
    return low if low == high else f"{low} to {high}"


def _average(standing: Standing | None) -> Markup:
    """A method's average over tasks with its marks; `MISSING` if a task has no score."""
    if standing is None:
        return Markup(MISSING)
    shown = points(standing.value)
    return Markup((f"**{shown}**" if standing.best else shown) + (" ≈" if standing.tied else ""))


def _score(sweep: AnalyzedSweep, result: CellResult, standing: Standing | None) -> Markup:
    """The entry of one cell: mean ± standard deviation, tie and footnote marks, and n if finals are missing."""
    marks = "".join(MARKS[name] for name in _flags(sweep, result))
    if result.mean is None or standing is None:
        return Markup(f"{MISSING} {marks}".strip())
    shown = points(result.mean) + (f" ± {points(result.std)}" if result.std is not None else " (std n/a)")
    shown = f"**{shown}**" if standing.best else shown
    number = f"n = {len(result.scores)}" if len(result.scores) != result.planned else ""
    parts = (shown, "≈" if standing.tied else "", marks, collapses(result), number)
    return Markup(" ".join(part for part in parts if part))


def collapses(result: CellResult) -> str:
    """How many of the finals with a score collapsed, as text: "1 of 3 collapsed"; "" if none did."""
    number = len(result.scores) - len(result.scores_without_collapse)
    return f"{number} of {len(result.scores)} collapsed" if number else ""


def _flags(sweep: AnalyzedSweep, result: CellResult) -> list[str]:
    """The keys of `MARKS` whose footnotes apply to this cell."""
    majority = sweep.manifest.tasks[result.cell.task].majority
    carried = {
        "collapsed": bool(collapses(result)),
        "diverged": result.diverged > 0,
        "incomplete": len(result.scores) != result.planned,
        "mixed": result.mixed,
        "constant": None not in (majority, result.mean) and result.mean <= majority,  # type: ignore[operator]
        "edge": bool(ends_of(sweep, result.cell)),
    }
    return [name for name in MARKS if carried[name]]


def _footnotes(sweep: AnalyzedSweep, model: str) -> list[Markup]:
    """The footnotes below a model's table of scores, in the order of `MARKS`."""
    notes, manifest = [], sweep.manifest
    for cell, result in sweep.results.items():
        where = escape(f"{manifest.methods[cell.method].title} on {manifest.tasks[cell.task].title}")
        if cell.model == model:
            notes += [Markup(f"{MARKS[name]} {where}: {_note(sweep, name, result)}") for name in _flags(sweep, result)]
    return sorted(notes, key=lambda note: list(MARKS.values()).index(note[0]))


def _note(sweep: AnalyzedSweep, name: str, result: CellResult) -> str:
    """The text of the footnote that `name`, a key of `MARKS`, stands for."""
    if name == "incomplete":
        state = {
            "complete": "",
            "finals running": "",
            "no winner": "no trial of the search finished, hence no winner; ",
        }
        counted = [
            f"{result.running} running" if result.running else "",
            f"{result.failed} failed" if result.failed else "",
        ]
        details = f" ({', '.join(part for part in counted if part)})" if any(counted) else ""
        return f"{state.get(result.progress, result.progress + '; ')}{len(result.scores)} of {result.planned} finals{details}"
    return {
        "collapsed": _collapse_note(result),
        "diverged": f"{result.diverged} of {result.planned} finals diverged (the loss stopped being finite); "
        "counted in the mean where they have a score",
        "mixed": "the finals differ in their hyperparameters (the winner changed during the sweep)",
        "constant": "the mean is not above that of a constant prediction",
        "edge": "the winner's "
        + ", ".join(f"{key} is the {end} value" for key, end in ends_of(sweep, result.cell).items())
        + " searched",
    }[name]


def _collapse_note(result: CellResult) -> str:
    """The number of collapsed finals, the exact bound of their rate, and the mean of the others."""
    others = result.scores_without_collapse
    number = len(result.scores) - len(others)
    rate = 100 * largest_plausible_rate(number, len(result.scores))
    mean = f"the mean of the other {len(others)} is {points(fmean(others))}" if others else "no other has a score"
    return (
        f"{number} of {len(result.scores)} finals collapsed to one constant prediction; counted in the mean; a seed collapses "
        f"with a probability of at most {rate:.0f} % (exact 95 % bound); {mean}"
    )


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
    """The explanation of the columns of the parameter tables."""
    legend = (
        "*Module weights* counts the matrices that the method adds (or, in full fine-tuning, updates), pruned entries left "
        "out; *with biases* adds their biases; *everything trained* is all that the optimiser moves, LayerNorms and task "
        "head included. A span means that the winners of different tasks differ in size, or their heads do."
    )
    paper = paper_of(manifest)
    if paper and any(nominal_percent(manifest, label) for label in manifest.methods):
        known = f"; {paper.shares}" if paper.shares else ""
        legend += f" *Nominal #P* is the share printed in the paper, for its settings and its encoders{known}."
    return legend


def _csv_row(sweep: AnalyzedSweep, result: CellResult, metric: str, values: Sequence[float]) -> dict[str, object]:
    manifest, cell, counts = sweep.manifest, result.cell, result.counts
    task, provenance = manifest.tasks[cell.task], results_provenance(sweep)
    is_score = metric == task.score
    standing = sweep.standings.get(cell) if is_score else None
    total = manifest.models[cell.model].total
    return {
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "title": manifest.methods[cell.method].title,
        "metric": metric,
        "is_score": is_score,
        "split": provenance.split,
        "selected_on": provenance.selected_on,
        "tries": manifest.planned_tries(cell.method),
        "progress": result.progress,
        "n": len(values),
        "planned": result.planned,
        "mean": fmean(values) if values else None,
        "std": pd.Series(values, dtype=float).std(ddof=1) if len(values) > 1 else None,
        "low": standing.interval[0] if standing and standing.interval else None,
        "high": standing.interval[1] if standing and standing.interval else None,
        "covers_examples": standing.with_examples if standing and standing.interval else None,
        "best": standing.best if standing else None,
        "tied": standing.tied if standing else None,
        "constant_prediction": task.majority if is_score else None,
        "collapsed": result.collapsed,
        "collapse_rate_at_most": _collapse_rate(result),
        "mean_without_collapse": _mean_without_collapse(result) if is_score else None,
        "diverged": result.diverged,
        "failed": result.failed,
        "weights": counts.weights if counts else None,
        "module": counts.module if counts else None,
        "trained": counts.trained if counts else None,
        "total": total,
        "trained_percent": 100 * counts.trained / total if counts else None,
    }


def _collapse_rate(result: CellResult) -> float | None:
    """The exact upper bound of the probability that a seed collapses, between 0 and 1; None without a score."""
    collapsed = len(result.scores) - len(result.scores_without_collapse)
    return largest_plausible_rate(collapsed, len(result.scores)) if result.scores else None


def _mean_without_collapse(result: CellResult) -> float | None:
    others = result.scores_without_collapse
    return fmean(others) if others else None


SECTION = Section(text=text, rows=rows, tables=tables, provenance=results_provenance)
