"""The table of results as a paper prints it: one LaTeX file, parameters beside scores, a caption that explains the marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from reports.data.cells import final_values
from reports.data.manifest import Manifest
from reports.plots.method_styles import methods_by_family
from reports.render.markdown import MISSING, Markup, count, escape
from reports.render.table import Table
from reports.sections import cost
from reports.sections.results import (
    FEET,
    MARKS,
    NOTES,
    flags,
    marked,
    marks,
    mean_baseline,
    smallest_seen,
    trained_share,
)
from reports.sections.section import results_provenance
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell
from search_spaces.loading import nearest

PARAMETERS, AVERAGE, HOURS = "parameters", "average", "hours"


@dataclass(frozen=True, kw_only=True)
class LatexOptions:
    """What the table shows.

    metric: the name of a metric of the test split; "" for the metric by which each task is scored. Ties are tested for that one
        alone, so that with another one nothing is marked.
    digits: decimals of scores. columns: "parameters", "average", "hours" and names of tasks, in order; () for parameters, all
        tasks and, if there are several, their average.
    """

    metric: str = ""
    digits: int = 2
    columns: tuple[str, ...] = ()

    def check(self, manifest: Manifest) -> None:
        """Raise ValueError for a metric that no task of the sweep has, and for an unknown column."""
        metrics = {metric for task in manifest.tasks.values() for metric in task.metrics}
        if self.metric and self.metric not in metrics:
            raise ValueError(f"--latex-metric {self.metric!r} is measured on no task: {nearest(self.metric, metrics)}")
        known = {PARAMETERS, HOURS, AVERAGE, *manifest.tasks}
        for name in self.columns:
            if name not in known:
                raise ValueError(f"--latex-columns {name!r} is no column: {nearest(name, known)}")

    def shown(self, manifest: Manifest) -> list[str]:
        """The names of the columns, without tasks that do not have the metric."""
        several = [AVERAGE] if len(manifest.tasks) > 1 else []
        names = self.columns or (PARAMETERS, *manifest.tasks, *several)
        return [
            n for n in names if not self.metric or n not in manifest.tasks or self.metric in manifest.tasks[n].metrics
        ]


def latex(sweep: AnalyzedSweep, options: LatexOptions) -> str:
    """The table as a LaTeX table environment. Raises ValueError for options that do not fit the sweep."""
    options.check(sweep.manifest)
    return table(sweep, options).latex("results")


def table(sweep: AnalyzedSweep, options: LatexOptions) -> Table:
    """One row per model and method, then constant predictions and the smallest visible difference of each model."""
    manifest, names = sweep.manifest, options.shown(sweep.manifest)
    several = len(manifest.models) > 1
    lines: list[list[object]] = []
    for model, facts in manifest.models.items():
        for position, label in enumerate(methods_by_family(sweep, model)):
            entries = [_entry(sweep, options, model, label, name) for name in names]
            title = [facts.title if position == 0 else ""] if several else []
            lines.append([*title, manifest.methods[label].title, *entries])
    feet = [] if options.metric else _feet(sweep, options, names)
    lines += [[foot[0], *([""] if several else []), *foot[1:]] for foot in feet]
    header = [*(["Model"] if several else []), "Method", *(_title(manifest, options, name) for name in names)]
    align = "l" * (len(header) - len(names)) + "r" * len(names)
    return Table(header=header, rows=lines, align=align, caption=_caption(sweep, options, lines))


def _title(manifest: Manifest, options: LatexOptions, name: str) -> str:
    if name in manifest.tasks:
        return f"{manifest.tasks[name].title} ({options.metric or manifest.tasks[name].score_title})"
    return {PARAMETERS: "Trained", AVERAGE: "Average", HOURS: "Hours"}[name]


def _entry(sweep: AnalyzedSweep, options: LatexOptions, model: str, label: str, name: str) -> object:
    if name == PARAMETERS:
        return trained_share(sweep, model, label)
    cells = [Cell(model=model, task=task, method=label) for task in sweep.manifest.tasks]
    if name == HOURS:
        return f"{sum(cost.hours(sweep, cell) for cell in cells):.3g}"
    if name == AVERAGE:
        return _average(sweep, options, cells)
    cell = Cell(model=model, task=name, method=label)
    mean, std = _mean_and_std(sweep, options, cell)
    if mean is None:
        return MISSING
    shown = _number(mean, options) + (f" ± {_number(std, options)}" if std is not None else "")
    if options.metric:
        return shown
    column = {c.method: s for c, s in sweep.standings.items() if (c.model, c.task) == (model, name)}
    signs = "".join(MARKS[flag] for flag in flags(sweep, sweep.results[cell]))
    return Markup(f"{marked(shown, column, label, sweep.manifest.tasks[name].majority)} {signs}".strip())


def _mean_and_std(sweep: AnalyzedSweep, options: LatexOptions, cell: Cell) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation of a cell, percent points; None where there are too few values."""
    if not options.metric:
        return sweep.results[cell].mean, sweep.results[cell].std
    values = final_values(sweep.finals[cell], options.metric)
    return fmean(values) if values else None, stdev(values) if len(values) > 1 else None


def _average(sweep: AnalyzedSweep, options: LatexOptions, cells: Sequence[Cell]) -> object:
    """The mean over all tasks (that have the metric); missing if a task has no score."""
    tasks = sweep.manifest.tasks
    means = [
        _mean_and_std(sweep, options, c)[0]
        for c in cells
        if not options.metric or options.metric in tasks[c.task].metrics
    ]
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means):
        return MISSING
    shown = _number(fmean(known), options)
    averages, label = sweep.average_standings[cells[0].model], cells[0].method
    return (
        shown
        if options.metric or label not in averages
        else marked(shown, averages, label, mean_baseline(sweep.manifest))
    )


def _feet(sweep: AnalyzedSweep, options: LatexOptions, names: Sequence[str]) -> list[list[object]]:
    """The rows below the methods: scores of a constant prediction, and per model the smallest visible difference."""
    manifest = sweep.manifest
    constants = {**{name: facts.majority for name, facts in manifest.tasks.items()}, AVERAGE: mean_baseline(manifest)}
    found: list[list[object]] = [[FEET[0], *(_number(constants.get(name), options, "") for name in names)]]
    for model, facts in manifest.models.items():
        columns = {
            name: [s for c, s in sweep.standings.items() if (c.model, c.task) == (model, name)]
            for name in manifest.tasks
        }
        columns[AVERAGE] = list(sweep.average_standings[model].values())
        seen = [smallest_seen(columns[name], options.digits) if name in columns else "" for name in names]
        title = (
            FEET[1] if len(manifest.models) == 1 else Markup(f"*Smallest visible difference, {escape(facts.title)}*")
        )
        if any(one not in ("", MISSING) for one in seen):
            found.append([title, *seen])
    return found


def _number(value: float | None, options: LatexOptions, missing: str = MISSING) -> str:
    return missing if value is None else f"{value:.{options.digits}f}"


def _caption(sweep: AnalyzedSweep, options: LatexOptions, lines: Sequence[Sequence[object]]) -> Markup:
    """What the numbers are, what each mark that occurs means, and how the configurations were selected."""
    budget = sweep.manifest.budget
    over = f"{budget.searches} searches" if budget.searches > 1 else f"{budget.final_seeds} final seeds"
    totals = ", ".join(f"{escape(facts.title)} {count(facts.total)}" for facts in sweep.manifest.models.values())
    spread = (
        f"mean ± sample standard deviation over {over}" if budget.searches > 1 or budget.final_seeds > 1 else "one seed"
    )
    text = [f"{escape(sweep.manifest.title)}: {options.metric or 'score'} in percent points, {spread}"]
    if PARAMETERS in options.shown(sweep.manifest):
        text.append(f"Trained: parameters that the optimiser moves, of the model's ({totals})")
    entries = " ".join(str(entry) for row in lines for entry in row[1:])
    text += [one[0].upper() + one[1:] for one in marks(sweep, lines)]
    text += [f"{sign}: {NOTES[name]}" for name, sign in MARKS.items() if sign in entries]
    return Markup(f"{'. '.join(text)}. {results_provenance(sweep).caption}")
