"""Methods against tasks: test scores of finals, mean and spread, ties, and what each method trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from reports.cells import CellResult, collect, final_values
from reports.manifest import Manifest
from reports.markdown import MISSING, Markup, bullets, count, escape, paragraphs, percent, points, table
from reports.section import Section
from reports.sections.paper import nominal_percent
from reports.store import Sweep
from reports.ties import within_noise
from reports.trials import by_cell
from search_spaces.language import Cell

Results = Mapping[Cell, CellResult]

MARKS = {
    "collapsed": "†",
    "diverged": "‡",
    "incomplete": "§",
    "mixed": "¶",
    "constant": "▾",
}


def text(sweep: Sweep) -> str:
    results = collect(sweep)
    parts = ["## Results on the test split", _legend(sweep.manifest)]
    for model, facts in sweep.manifest.models.items():
        parts += [
            f"### {escape(facts.title)}",
            _scores(sweep.manifest, model, results),
            bullets(_footnotes(sweep.manifest, model, results)),
            f"Trainable parameters on {escape(facts.title)}, {count(facts.total)} of which are 100 %:",
            _parameters(sweep.manifest, model, results),
        ]
    return paragraphs(*parts, _counting(sweep.manifest))


def rows(sweep: Sweep) -> pd.DataFrame:
    """One row per cell and test metric."""
    results = collect(sweep)
    finals = sweep.trials[sweep.trials["phase"] == "final"]
    groups = by_cell(sweep.manifest, finals)
    return pd.DataFrame(
        [
            _csv_row(sweep.manifest, result, metric, final_values(groups[cell], metric))
            for cell, result in results.items()
            for metric in dict.fromkeys(
                (sweep.manifest.tasks[cell.task].score, *sweep.manifest.tasks[cell.task].metrics)
            )
        ]
    )


def best_of(column: Sequence[CellResult]) -> list[CellResult]:
    """The results with the highest mean as printed; several when they are equal there."""
    means = [points(result.mean) for result in column if result.mean is not None]
    top = max(means, key=float, default="")
    return [result for result in column if result.mean is not None and points(result.mean) == top]


def tied(result: CellResult, column: Sequence[CellResult]) -> bool:
    """Whether the result's difference from the best of its column is within noise; False for the best itself."""
    best = best_of(column)
    return bool(best) and result not in best and within_noise(best[0].scores, result.scores) is True


def average(results: Sequence[CellResult]) -> float | None:
    """Mean over tasks of the means over seeds; None unless every task has one."""
    means = [result.mean for result in results if result.mean is not None]
    return fmean(means) if len(means) == len(results) else None


def _legend(manifest: Manifest) -> str:
    n = manifest.budget.final_seeds
    spread = "mean ± sample standard deviation (n − 1)" if n > 1 else "one run, standard deviation n/a,"
    ties = (
        "≈: not distinguishable from the column's best, because the 95 % Welch interval of the difference over seeds contains "
        f"zero. With n = {n} the power is low: ≈ says *cannot tell*, not *equal*. The interval covers the variation between "
        "seeds only, not the choice of test examples, and is not corrected for the number of comparisons."
        if n > 1
        else "With a single seed no difference between methods can be judged."
    )
    return (
        f"Percent points, higher is better: {spread} over the final seeds, n = {n} unless another n is given. **Bold**: best "
        f"mean of the column. {ties} *Average* is the unweighted mean over tasks, given when every task has a result. "
        f"{MISSING}: no result."
    )


def _scores(manifest: Manifest, model: str, results: Results) -> str:
    tasks = list(manifest.tasks)
    columns = {task: [results[Cell(model=model, task=task, method=m)] for m in manifest.methods] for task in tasks}
    averages = [average([columns[task][row] for task in tasks]) for row in range(len(manifest.methods))]
    top = max((points(value) for value in averages if value is not None), key=float, default="")
    lines: list[list[object]] = []
    for row, label in enumerate(manifest.methods):
        cells = [_score(manifest, columns[task][row], columns[task]) for task in tasks]
        mean = points(averages[row])
        lines.append([manifest.methods[label].title, *cells, Markup(f"**{mean}**") if mean == top else mean])
    constants = [manifest.tasks[task].majority for task in tasks]
    known = [value for value in constants if value is not None]
    lines.append(
        [
            Markup("*Constant prediction*"),
            *(points(value) for value in constants),
            points(fmean(known) if len(known) == len(tasks) else None),
        ]
    )
    header = ["Method", *(f"{manifest.tasks[task].title} ({manifest.tasks[task].score})" for task in tasks), "Average"]
    return table(header, lines, "l" + "r" * (len(tasks) + 1))


def _score(manifest: Manifest, result: CellResult, column: Sequence[CellResult]) -> Markup:
    marks = "".join(MARKS[name] for name in _flags(manifest, result))
    if result.mean is None:
        return Markup(f"{MISSING} {marks}".strip())
    shown = points(result.mean) + (f" ± {points(result.std)}" if result.std is not None else " (std n/a)")
    shown = f"**{shown}**" if result in best_of(column) else shown
    number = f"n = {len(result.scores)}" if len(result.scores) != result.planned else ""
    return Markup(" ".join(part for part in (shown, "≈" if tied(result, column) else "", marks, number) if part))


def _flags(manifest: Manifest, result: CellResult) -> list[str]:
    """Names of the marks that this cell carries."""
    majority = manifest.tasks[result.cell.task].majority
    carried = {
        "collapsed": result.collapsed > 0,
        "diverged": result.diverged > 0,
        "incomplete": len(result.scores) != result.planned,
        "mixed": result.mixed,
        "constant": None not in (majority, result.mean) and result.mean <= majority,  # type: ignore[operator]
    }
    return [name for name in MARKS if carried[name]]


def _footnotes(manifest: Manifest, model: str, results: Results) -> list[Markup]:
    notes = []
    for cell, result in results.items():
        where = escape(f"{manifest.methods[cell.method].title} on {manifest.tasks[cell.task].title}")
        if cell.model == model:
            notes += [Markup(f"{MARKS[name]} {where}: {_note(name, result)}") for name in _flags(manifest, result)]
    return sorted(notes, key=lambda note: list(MARKS.values()).index(note[0]))


def _note(name: str, result: CellResult) -> str:
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
        "collapsed": f"{result.collapsed} of {result.planned} finals collapsed to one constant prediction; counted in the mean",
        "diverged": f"{result.diverged} of {result.planned} finals diverged (the loss stopped being finite); "
        "counted in the mean where they have a score",
        "mixed": "the finals differ in their hyperparameters (the winner changed during the sweep)",
        "constant": "the mean is not above that of a constant prediction",
    }[name]


def _parameters(manifest: Manifest, model: str, results: Results) -> str:
    header = ["Method", "Module weights", "With biases", "Everything trained"]
    nominal = {label: nominal_percent(manifest, label) for label in manifest.methods}
    if any(nominal.values()):
        header.append("Nominal #P (paper)")
    lines = []
    for label in manifest.methods:
        counts = [
            result.counts
            for cell, result in results.items()
            if (cell.model, cell.method) == (model, label) and result.counts is not None
        ]
        ways = [sorted({getattr(one, way) for one in counts}) for way in ("weights", "module", "trained")]
        cells = [_span(values, manifest.models[model].total) for values in ways]
        lines.append([manifest.methods[label].title, *cells, *([nominal[label] or MISSING] if len(header) > 4 else [])])
    return table(header, lines, "l" + "r" * (len(header) - 1))


def _span(values: Sequence[int], total: int) -> str:
    """One count with its share of the backbone; the smallest and the largest when winners of different tasks differ."""
    if not values:
        return MISSING
    if values[0] == values[-1]:
        return f"{count(values[0])} ({percent(values[0], total)})"
    low, high = percent(values[0], total).removesuffix(" %"), percent(values[-1], total)
    return f"{count(values[0])} to {count(values[-1])} ({low} to {high})"


def _counting(manifest: Manifest) -> str:
    told = (
        "*Module weights* counts the matrices that the method adds (or, in full fine-tuning, updates), pruned entries left "
        "out; *with biases* adds their biases; *everything trained* is all that the optimiser moves, LayerNorms and task "
        "head included. A span means that the winners of different tasks differ in size, or their heads do."
    )
    if any(nominal_percent(manifest, label) for label in manifest.methods):
        told += (
            " *Nominal #P* is the column printed in the paper, for its settings and its encoders; no way of counting that "
            "was tried gives exactly these figures for BERT, which is why exact counts stand beside them."
        )
    return told


def _csv_row(manifest: Manifest, result: CellResult, metric: str, values: Sequence[float]) -> dict[str, object]:
    task = manifest.tasks[result.cell.task]
    counts = result.counts
    total = manifest.models[result.cell.model].total
    is_score = metric == task.score
    return {
        "model": result.cell.model,
        "task": result.cell.task,
        "method": result.cell.method,
        "title": manifest.methods[result.cell.method].title,
        "metric": metric,
        "is_score": is_score,
        "progress": result.progress,
        "n": len(values),
        "planned": result.planned,
        "mean": fmean(values) if values else None,
        "std": pd.Series(values, dtype=float).std(ddof=1) if len(values) > 1 else None,
        "constant_prediction": task.majority if is_score else None,
        "collapsed": result.collapsed,
        "diverged": result.diverged,
        "failed": result.failed,
        "weights": counts.weights if counts else None,
        "module": counts.module if counts else None,
        "trained": counts.trained if counts else None,
        "total": total,
        "trained_percent": 100 * counts.trained / total if counts else None,
    }


SECTION = Section(text=text, rows=rows)
