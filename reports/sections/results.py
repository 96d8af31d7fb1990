"""The main results, one table of methods by tasks per model: trained parameters, test scores of finals (mean, standard
deviation), and ties. `paper_table.py` writes them for LaTeX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from reports.data.cells import CellResult, final_values, winner_counts
from reports.data.manifest import Manifest
from reports.plots.method_styles import methods_by_family
from reports.render.markdown import MISSING, Markup, bullets, count, escape, paragraphs, plural, points, shares
from reports.render.table import Table
from reports.sections.second_look import advice, ends_of
from reports.sections.section import Section, caption, results_provenance
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.answers import answer
from reports.statistics.collapse_rate import largest_plausible_rate
from reports.statistics.rounding import PRINTED_DIGITS
from reports.statistics.standings import Standing
from search_spaces.language import Cell
from search_spaces.quantization import precision_words

# Footnote marks of a cell, by their cause, and what they mean.
MARKS = {
    "collapsed": "†",
    "diverged": "‡",
    "incomplete": "§",
    "mixed": "¶",
    "constant": "▾",
    "edge": "⇥",
}
NOTES = {
    "collapsed": "finals that give one constant prediction, counted in the mean (exact 95 % bound of their rate)",
    "diverged": "finals whose loss stopped being finite, counted in the mean where they have a score",
    "incomplete": "finals are missing",
    "mixed": "the finals differ in their hyperparameters, since the winner changed during the sweep",
    "constant": "the mean is not above that of a constant prediction",
    "edge": "a winning value is the lowest or highest searched, so that a better one may lie outside",
}
FEET = (Markup("*Constant prediction*"), Markup("*Smallest visible difference*"))


def text(sweep: AnalyzedSweep) -> str:
    parts = ["## Results on the test split"]
    for number, (model, facts) in enumerate(sweep.manifest.models.items()):
        shown = table(sweep, model)
        parts += [
            f"### {escape(facts.title)}",
            shown.markdown(),
            _legend(sweep, model) if number == 0 else "",
            bullets([*marks(sweep, shown.rows), *_footnotes(sweep, model)]),
            _ranges(sweep, model),
        ]
    return paragraphs(*parts, _unseen_collapses(sweep.manifest.budget.final_seeds), caption(results_provenance(sweep)))


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


def _ranges(sweep: AnalyzedSweep, model: str) -> str:
    """Which ranges to search instead before a row's result is read as its method's; "" if none."""
    found = advice(sweep, model)
    if not found:
        return ""
    return paragraphs(
        "**For these (▾ or ⇥) the setting may be what is weak, not the method; search instead:**", bullets(found)
    )


def _legend(sweep: AnalyzedSweep, model: str) -> str:
    """What the numbers of the table are."""
    budget, total = sweep.manifest.budget, sweep.manifest.models[model].total
    n = budget.final_seeds
    trained = f"*Trained*: share of the pretrained model's {count(total)} parameters."
    average = " *Average*: unweighted mean over tasks." if len(sweep.manifest.tasks) > 1 else ""
    seen = (
        " *Smallest visible difference* to the best that these seeds and test examples could have shown."
        if n > 1
        else ""
    )
    if budget.searches > 1:
        spread = (
            f"mean ± sample standard deviation of the {budget.searches} searches, each the mean of its "
            f"{plural(budget.final_seeds, 'final')}"
        )
    elif n > 1:
        spread = f"mean ± sample standard deviation (n − 1) over {n} final seeds unless another n is given"
    else:
        spread = "one run. With a single seed no difference between methods can be judged"
    precision = precision_words(sweep.manifest.recipe)
    trained_in = f" Trained and tested with {precision}." if precision else ""
    return f"Percent points, higher is better: {spread}. {trained}{average}{seen}{trained_in}"


def _unseen_collapses(n: int) -> str:
    """What n finals without a collapse say about the next one."""
    return (
        "Intervals and ties suppose that no further seed collapses to a constant prediction. Without a collapse among "
        f"{plural(n, 'final')}, one may still do so with a probability of up to {100 * largest_plausible_rate(0, n):.0f} % "
        "(exact 95 % bound)."
    )


def marks(sweep: AnalyzedSweep, lines: Sequence[Sequence[object]]) -> list[Markup]:
    """What bold type, ties and missing results mean, where the lines of a table have any."""
    entries = [str(entry) for row in lines if row[0] not in FEET for entry in row[1:]]
    found = []
    if any("**" in entry for entry in entries):
        found.append("**bold**: the best mean of a column in which at least one method is significantly worse")
    if any("≈" in entry for entry in entries):
        found.append(
            "≈: cannot be told apart from the best mean of the column by these "
            f"{'searches' if sweep.manifest.budget.searches > 1 else 'seeds'} and test examples, which is not *equal*"
        )
    if any(entry.startswith(MISSING) for entry in entries):
        found.append(f"{MISSING}: no result")
    return [Markup(one) for one in found]


def table(sweep: AnalyzedSweep, model: str) -> Table:
    """The table of test scores of one model: a row per method, then constant predictions and smallest visible differences."""
    manifest, results, judged = sweep.manifest, sweep.results, sweep.standings
    tasks, several = list(manifest.tasks), len(manifest.tasks) > 1
    columns = {task: {c.method: s for c, s in judged.items() if (c.model, c.task) == (model, task)} for task in tasks}
    averages, baseline = sweep.average_standings[model], mean_baseline(manifest)
    lines: list[list[object]] = []
    for label in methods_by_family(sweep, model):
        cells = [Cell(model=model, task=task, method=label) for task in tasks]
        scores = [_score(sweep, results[cell], columns[cell.task]) for cell in cells]
        average = [_average(averages, label, baseline)] if several else []
        lines.append([manifest.methods[label].title, trained_share(sweep, model, label), *scores, *average])
    constants = [task.majority for task in manifest.tasks.values()]
    lines.append([FEET[0], "", *map(points, constants), *([points(baseline)] if several else [])])
    compared = [list(column.values()) for column in (*columns.values(), *([averages] if several else []))]
    if any(s.smallest_significant_gap for column in compared for s in column):
        lines.append([FEET[1], "", *map(smallest_seen, compared)])
    titles = [f"{task.title} ({task.score_title})" for task in manifest.tasks.values()]
    header = ["Method", "Trained", *titles, *(["Average"] if several else [])]
    return Table(header=header, rows=lines, align="l" + "r" * (len(header) - 1), caption=_caption(sweep, model))


def mean_baseline(manifest: Manifest) -> float | None:
    """The mean over tasks of a constant prediction's score, percent points; None if that of a task is not known."""
    constants = [task.majority for task in manifest.tasks.values()]
    known = [value for value in constants if value is not None]
    return fmean(known) if len(known) == len(constants) else None


def _caption(sweep: AnalyzedSweep, model: str) -> Markup:
    title = f"{escape(sweep.manifest.title)}, {escape(sweep.manifest.models[model].title)}"
    return Markup(f"{title}. {results_provenance(sweep).caption}")


def trained_share(sweep: AnalyzedSweep, model: str, label: str) -> str:
    """The parameters that a method's winners train, as a share of the model's; the smallest and the largest if they differ."""
    trained = [counts.trained for counts in winner_counts(sweep.results, model, label)]
    return shares(trained, sweep.manifest.models[model].total)


def visible(difference: float | None, digits: int = PRINTED_DIGITS) -> str:
    """A difference in percent points as text: "> 100" if it is larger than 100, `MISSING` for None."""
    if difference is None:
        return MISSING
    return "> 100" if difference > 100 else f"{difference:.{digits}f}"


def smallest_seen(column: Sequence[Standing], digits: int = PRINTED_DIGITS) -> str:
    """The smallest difference to the best that would have been significant, as text: the range over the column's methods."""
    found = sorted(s.smallest_significant_gap for s in column if s.smallest_significant_gap is not None)
    if not found:
        return MISSING
    low, high = visible(found[0], digits), visible(found[-1], digits)
    return low if low == high else f"{low} to {high}"


def marked(shown: str, column: Mapping[str, Standing], label: str, baseline: float | None) -> Markup:
    """A mean as text, bold if it is the best of its column and followed by ≈ if it is tied with the best.

    Where no method is worse than the best one or none is above a constant prediction, leads are noise, and nothing is marked.
    """
    found = answer(column, baseline)
    if found.outcome != "different":
        return Markup(shown)
    return Markup(f"**{shown}**" if column[label].best else f"{shown} ≈" if label in found.tied else shown)


def _average(averages: Mapping[str, Standing], label: str, baseline: float | None) -> Markup:
    """A method's average over tasks with its marks; `MISSING` if a task has no score."""
    return marked(points(averages[label].value), averages, label, baseline) if label in averages else Markup(MISSING)


def _score(sweep: AnalyzedSweep, result: CellResult, column: Mapping[str, Standing]) -> Markup:
    """The entry of one cell: mean ± standard deviation, tie and footnote marks, and n if finals are missing."""
    marks = "".join(MARKS[name] for name in flags(sweep, result))
    label = result.cell.method
    if result.mean is None or label not in column:
        return Markup(f"{MISSING} {marks}".strip())
    shown = points(result.mean) + (f" ± {points(result.std)}" if result.std is not None else " (std n/a)")
    number = f"n = {len(result.scores)}" if len(result.scores) != result.planned else ""
    parts = (
        marked(shown, column, label, sweep.manifest.tasks[result.cell.task].majority),
        marks,
        collapses(result),
        number,
    )
    return Markup(" ".join(part for part in parts if part))


def collapses(result: CellResult) -> str:
    """How many of the finals with a score collapsed, as text: "1 of 3 collapsed"; "" if none did."""
    number = len(result.scores) - len(result.scores_without_collapse)
    return f"{number} of {len(result.scores)} collapsed" if number else ""


def flags(sweep: AnalyzedSweep, result: CellResult) -> list[str]:
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
    """The footnotes below a model's table of scores, one per mark, with what is to be said of single cells."""
    methods, tasks = sweep.manifest.methods, sweep.manifest.tasks
    notes: dict[str, list[str]] = {}
    for cell, result in sweep.results.items():
        for name in flags(sweep, result) if cell.model == model else ():
            task = f" on {tasks[cell.task].title}" if len(tasks) > 1 else ""
            detail = _detail(name, result)
            notes.setdefault(name, []).extend(
                [escape(f"{methods[cell.method].title}{task} ({detail})")] if detail else []
            )
    return [
        Markup(f"{sign} {NOTES[name]}" + (f": {'; '.join(notes[name])}" if notes[name] else ""))
        for name, sign in MARKS.items()
        if name in notes
    ]


def _detail(name: str, result: CellResult) -> str:
    """What the footnote `name`, a key of `MARKS`, says of this cell alone."""
    if name == "incomplete":
        state = {"complete": "", "no winner": "no trial of the search finished, hence no winner, "}
        counted = {"not ended": result.unfinished, "failed": result.failed}
        details = "".join(f", {number} {what}" for what, number in counted.items() if number)
        progress = state.get(result.progress, f"{result.progress}, ")
        return f"{progress}{len(result.scores)} of {result.planned} finals{details}"
    if name == "collapsed":
        return _collapse_detail(result)
    return f"{result.diverged} of {result.planned}" if name == "diverged" else ""


def _collapse_detail(result: CellResult) -> str:
    """The exact bound of the rate of collapses, and the mean of the finals that did not."""
    others = result.scores_without_collapse
    number = len(result.scores) - len(others)
    rate = 100 * largest_plausible_rate(number, len(result.scores))
    mean = f"the mean of the other {len(others)} is {points(fmean(others))}" if others else "no other has a score"
    return f"{number} of {len(result.scores)}: a seed collapses with a probability of at most {rate:.0f} %; {mean}"


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


SECTION = Section(text=text, rows=rows, provenance=results_provenance)
