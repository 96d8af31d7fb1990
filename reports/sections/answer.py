"""The first section of the report: its answer, in a sentence or two for each task and for all tasks of a model.

What is said follows from `reports/statistics/answers.py`; the numbers are those of the tables further down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from reports.data.manifest import Manifest
from reports.plots.method_styles import methods_by_family
from reports.render.markdown import MISSING, Markup, bullets, escape, paragraphs, percent, plural, points
from reports.sections import cost
from reports.sections.results import collapses, mean_baseline, smallest_seen
from reports.sections.second_look import ends_of
from reports.sections.section import Section, results_provenance, varied
from reports.sections.winners import chosen, won
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.answers import Answer, answer
from reports.statistics.standings import Standing
from search_spaces.language import Cell
from search_spaces.records import END_STATES

NAMED = 3  # tied or worse methods that are named in a sentence; of more, their number is given


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What the sentences about one model and task, or about all tasks of a model, are made from; methods by label.

    where: the task's title. baseline: score of a constant prediction, percent points. cells: those of the column by method.
    trained: parameters (mean over tasks); hours: of training, search and finals. Both lack methods for which they are unknown.
    settings: the winner's values of the searched hyperparameters, as " (lr 0.001)".
    """

    where: str
    metric: str
    standings: Mapping[str, Standing]
    baseline: float | None
    cells: Mapping[str, Sequence[Cell]]
    trained: Mapping[str, float]
    hours: Mapping[str, float]
    settings: Mapping[str, str]

    @property
    def answer(self) -> Answer:
        """What can be concluded; methods that train fewer parameters come first, also among equal best ones."""
        ranked = sorted(self.standings, key=lambda label: self.trained.get(label, float("inf")))
        return answer({label: self.standings[label] for label in ranked}, self.baseline)


def text(sweep: AnalyzedSweep) -> str:
    manifest = sweep.manifest
    models = list(manifest.models)
    return paragraphs(
        f"# {escape(manifest.title)}",
        _reductions(manifest),
        _so_far(sweep),
        *(
            paragraphs(
                f"**{escape(manifest.models[model].title)}**" if len(models) > 1 else "", _of_model(sweep, model)
            )
            for model in models
        ),
        _scope(sweep),
        _what(manifest),
    )


def _of_model(sweep: AnalyzedSweep, model: str) -> str:
    """The sentences on one model: one item per task, and one for all tasks if there are several."""
    tasks = list(sweep.manifest.tasks)
    columns = [_task_column(sweep, model, task) for task in tasks]
    items = [Markup(_task_sentences(sweep, column)) for column in columns]
    if len(tasks) > 1:
        items.append(Markup(_average_sentences(sweep, model, columns)))
    return bullets(items)


def _task_sentences(sweep: AnalyzedSweep, column: _Column) -> str:
    lead = _lead(sweep, column)
    parts = (lead, _not_learnt(sweep, column), _ends(sweep, column), _unfinished(sweep, column))
    return f"**{column.where}**: {' '.join(part for part in parts if part)}"


def _average_sentences(sweep: AnalyzedSweep, model: str, columns: Sequence[_Column]) -> str:
    """The sentence on the mean over tasks, and on how many tasks nothing was learnt."""
    empty = [column.where for column in columns if column.answer.outcome == "nothing learnt"]
    if len(empty) == len(columns):
        return "**All tasks**: no method beat a constant prediction on any task, so that no method can be recommended."
    average = _average_column(sweep, model, columns)
    lead = _lead(sweep, average) if average.standings else "no method has a result on every task."
    learnt = f" On {', '.join(empty)} no method beat a constant prediction." if empty else ""
    return f"**All tasks**, mean: {lead}{learnt}"


def _lead(sweep: AnalyzedSweep, column: _Column) -> str:
    """What to use, its score, what it costs, and what is tied with it or worse."""
    found = column.answer
    if found.outcome == "no result":
        return _best_so_far(sweep, column)
    best = f"{_title(sweep, found.best)}{column.settings[found.best]}"
    score = f"{column.metric} {_score(column, found.best)}{_collapsed(sweep, column, found.best)}"
    above = f", constant prediction {points(column.baseline)}" if column.baseline is not None else ""
    if found.outcome == "nothing learnt":
        return (
            f"no method beat a constant prediction ({points(column.baseline)}) beyond chance. The highest mean is "
            f"{_title(sweep, found.best)}'s: {score}."
        )
    if found.outcome == "one method":
        return f"{best} is the only method with a result: {score}{above}."
    costs = f"{_trained_share(sweep, column, found.best)}"
    if found.outcome == "not judged":
        why = "with a single final seed" if sweep.manifest.budget.final_seeds == 1 else "with the finals so far"
        return f"{why} no difference can be judged. The highest mean is that of {best}: {score}{above}{costs}."
    seen = f"Differences below {smallest_seen(list(column.standings.values()))} points could not have been seen."
    if found.outcome == "alike":
        return (
            f"no difference between the {len(column.standings)} methods can be seen. The highest mean is that of {best}: "
            f"{score}{above}{costs}. {_tied(sweep, column, found)}{seen} More final seeds or test examples show smaller ones."
        )
    worse = _listed([f"{_title(sweep, one)} by {points(_gap(column, one))}" for one in _nearest(column, found.worse)])
    return f"use {best}: {score}{above}{costs}. {_tied(sweep, column, found)}Worse: {worse}. {seen}"


def _tied(sweep: AnalyzedSweep, column: _Column, found: Answer) -> str:
    """The methods that are tied with the best one, and their cost beside its."""
    named = [
        f"{_title(sweep, label)} {points(column.standings[label].value)}{_relative(column, label, found.best)}"
        for label in found.tied
    ]
    return f"Tied with it: {_listed(named)}. " if named else ""


def _relative(column: _Column, label: str, best: str) -> str:
    """A method's trained parameters and training hours as shares of those of the best one."""
    told = [
        f"{_share(of[label] / of[best])} its {what}"
        for of, what in ((column.trained, "trained parameters"), (column.hours, "training hours"))
        if of.get(best) and label in of
    ]
    return f", at {' and '.join(told)}" if told else ""


def _share(ratio: float) -> str:
    if ratio >= 10:
        return f"{ratio:.0f} times"
    return f"{100 * ratio:.0f} % of" if ratio >= 0.1 else f"{percent(ratio, 1)} of"


def _trained_share(sweep: AnalyzedSweep, column: _Column, label: str) -> str:
    """The method's trained parameters as a share of the model's, and its share of the column's training hours."""
    (cell, *_), total = column.cells[label], sum(column.hours.values())
    told = []
    if label in column.trained:
        told.append(
            f"{percent(column.trained[label], sweep.manifest.models[cell.model].total)} of the model's parameters"
        )
    if total:
        told.append(f"{100 * column.hours.get(label, 0) / total:.0f} % of the training hours")
    return f"; trains {' in '.join(told)}" if len(told) == 2 else ""


def _not_learnt(sweep: AnalyzedSweep, column: _Column) -> str:
    """What to change where nothing was learnt; or which methods are not above a constant prediction."""
    found = column.answer
    if found.outcome == "nothing learnt":
        (cell, *_) = column.cells[found.best]
        train, epochs = sweep.manifest.tasks[cell.task].train, sweep.manifest.recipe.epochs
        advice = f"Try more examples (now {train:,}), more epochs (now {epochs}) or a higher learning rate."
        above = column.baseline is not None and column.standings[found.best].value > column.baseline
        return f"{advice} More final seeds or test examples would narrow the interval." if above else advice
    if not found.constant:
        return ""
    return f"Not above a constant prediction beyond chance: {_listed([_title(sweep, one) for one in found.constant])}."


def _ends(sweep: AnalyzedSweep, column: _Column) -> str:
    """Which methods have their best learning rate at an end of what was tried. If nothing was learnt, a lowest one is chance."""
    told, learnt = [], column.answer.outcome != "nothing learnt"
    for end in ("highest", "lowest") if learnt else ("highest",):
        labels = [label for label, (cell, *_) in column.cells.items() if ends_of(sweep, cell).get("lr") == end]
        if labels:
            named = _listed([_title(sweep, label) for label in labels], "and")
            told.append(f"The best learning rate is the {end} tried for {named}.")
    return " ".join(told)


def _unfinished(sweep: AnalyzedSweep, column: _Column) -> str:
    """What is known of the methods that have no result yet, in a column where others have one; "" if all have one."""
    if not column.standings:
        return ""
    left = [cell for label, (cell, *_) in column.cells.items() if label not in column.standings]
    named = [f"{_title(sweep, cell.method)} {_validation(sweep, cell)}" for cell in left]
    return f"Without a result, best validation score so far: {'; '.join(named)}." if named else ""


def _best_so_far(sweep: AnalyzedSweep, column: _Column) -> str:
    """The best validation scores of a column in which no final has a score."""
    above = (
        f" (constant prediction on the test split: {points(column.baseline)})" if column.baseline is not None else ""
    )
    named = [f"{_title(sweep, label)} {_validation(sweep, cell)}" for label, (cell, *_) in column.cells.items()]
    return f"no final has a result. Best validation scores so far, maxima of a search{above}: {'; '.join(named)}."


def _validation(sweep: AnalyzedSweep, cell: Cell) -> str:
    """The best validation score of a cell's search so far with its configuration, and how many configurations have ended."""
    table = sweep.configurations
    ended = table[(table["cell"] == str(cell)) & table["state"].isin(END_STATES)]
    planned = sweep.manifest.planned_tries(cell.method) * sweep.manifest.budget.searches
    tried = f"{len(ended)} of {planned} tried"
    if not ended["best_score"].notna().any():
        return f"{MISSING} ({tried})"
    best = ended.loc[ended["best_score"].idxmax()]
    return f"{points(best['best_score'])} ({escape('; '.join(filter(None, [chosen(sweep, cell, best), tried])))})"


def _task_column(sweep: AnalyzedSweep, model: str, task: str) -> _Column:
    facts = sweep.manifest.tasks[task]
    cells = {label: [Cell(model=model, task=task, method=label)] for label in methods_by_family(sweep, model)}
    return _Column(
        where=escape(facts.title),
        metric=escape(facts.score_title),
        standings={label: sweep.standings[cell] for label, (cell,) in cells.items() if cell in sweep.standings},
        baseline=facts.majority,
        cells=cells,
        settings={label: _bracketed(_setting(sweep, cell)) for label, (cell,) in cells.items()},
        **_costs(sweep, cells),
    )


def _average_column(sweep: AnalyzedSweep, model: str, columns: Sequence[_Column]) -> _Column:
    order = methods_by_family(sweep, model)
    cells = {label: [cell for column in columns for cell in column.cells[label]] for label in order}
    averages = sweep.average_standings[model]
    return _Column(
        where="All tasks",
        metric="score",
        standings={label: averages[label] for label in order if label in averages},
        baseline=mean_baseline(sweep.manifest),
        cells=cells,
        settings=dict.fromkeys(order, ""),
        **_costs(sweep, cells),
    )


def _costs(sweep: AnalyzedSweep, cells: Mapping[str, Sequence[Cell]]) -> dict[str, dict[str, float]]:
    """The fields `trained` and `hours` of a column with these cells."""
    counts = {label: [c.trained for cell in own if (c := sweep.results[cell].counts)] for label, own in cells.items()}
    return {
        "trained": {label: fmean(known) for label, known in counts.items() if known},
        "hours": {label: sum(cost.hours(sweep, cell) for cell in own) for label, own in cells.items()},
    }


def _setting(sweep: AnalyzedSweep, cell: Cell) -> str:
    """The winner's values of what was searched; "" if nothing was, or if the searches of a cell have different winners."""
    rows = [won(sweep, cell, number) for number in range(sweep.manifest.budget.searches)]
    found = {chosen(sweep, cell, row) for row in rows if row is not None}
    return found.pop() if len(found) == 1 else ""


def _bracketed(setting: str) -> str:
    return f" ({escape(setting)})" if setting else ""


def _score(column: _Column, label: str) -> str:
    """The mean with its 95 % interval, percent points."""
    standing = column.standings[label]
    interval = standing.interval
    shown = escape(f"[{points(interval[0])}, {points(interval[1])}]") if interval else ""
    return f"{points(standing.value)} {shown}".rstrip()


def _collapsed(sweep: AnalyzedSweep, column: _Column, label: str) -> str:
    """How many of the finals behind a mean collapsed, and how many are missing, in parentheses; "" if none."""
    results = [sweep.results[cell] for cell in column.cells[label]]
    missing = [f"{len(one.scores)} of {one.planned} finals" for one in results if len(one.scores) != one.planned]
    told = [*map(collapses, results), *missing]
    return f" ({', '.join(text for text in told if text)})" if any(told) else ""


def _gap(column: _Column, label: str) -> float | None:
    gap = column.standings[label].gap
    return gap.value if gap else None


def _nearest(column: _Column, labels: Sequence[str]) -> list[str]:
    return sorted(labels, key=lambda label: _gap(column, label) or 0.0)


def _title(sweep: AnalyzedSweep, label: str) -> str:
    return escape(sweep.manifest.methods[label].title)


def _listed(named: Sequence[str], last: str = "") -> str:
    """The first `NAMED` texts, and how many more there are; `last` joins the last two of a short list."""
    if len(named) > NAMED + 1:
        return f"{'; '.join(named[:NAMED])}; {len(named) - NAMED} more"
    return f" {last} ".join([", ".join(named[:-1]), named[-1]]) if last and len(named) > 1 else "; ".join(named)


def _reductions(manifest: Manifest) -> str:
    if not manifest.reductions:
        return ""
    return f"> **Changed from the space as written:** {'; '.join(map(escape, manifest.reductions))}"


def _so_far(sweep: AnalyzedSweep) -> str:
    """A note on what an unfinished sweep lacks; "" if all cells are complete."""
    results = sweep.results.values()
    left = [result for result in results if not result.ended]
    if not left:
        return ""
    progress = [result.progress for result in left]
    listed = ", ".join(f"{one}: {progress.count(one)}" for one in dict.fromkeys(progress))
    finals = sum(result.planned - len(result.scores) - result.failed for result in left)
    missing = [f"{plural(finals, 'final')}"]
    if number := _missing_trials(sweep):
        missing.insert(0, f"{plural(number, 'trial')} of the search")
    return (
        f"> **So far:** {len(results) - len(left)} of {plural(len(results), 'cell')} complete; {listed}. Missing: "
        f"{' and '.join(missing)}. The numbers will change; the sweep's command continues it."
    )


def _missing_trials(sweep: AnalyzedSweep) -> int:
    """How many trials of searches that have not ended have not ended themselves."""
    searching = [
        str(cell) for cell, result in sweep.results.items() if result.progress in ("search unfinished", "not started")
    ]
    trials = sweep.trials[(sweep.trials["phase"] == "search") & sweep.trials["cell"].isin(searching)]
    ended = int(trials["state"].isin(END_STATES).sum())
    if sweep.curtailed:
        return len(trials) - ended
    methods = [cell.method for cell, result in sweep.results.items() if str(cell) in searching]
    planned = sum(sweep.manifest.planned_trials(label) for label in methods) * sweep.manifest.budget.searches
    return max(planned - ended, 0)


def _scope(sweep: AnalyzedSweep) -> str:
    """What the answer holds for, where methods were compared."""
    budget = sweep.manifest.budget
    if budget.searches > 1:
        return f"Compared {varied(budget)}. Scores are means on the test split, percent points \\[95 % interval\\]."
    return (
        "Scores are means on the test split, percent points \\[95 % interval\\]. They hold *for the configurations found*: each "
        "cell was searched once, and another search may find others."
    )


def _what(manifest: Manifest) -> str:
    return (
        f"{plural(len(manifest.methods), 'method')} on {plural(len(manifest.tasks), 'task')} and "
        f"{plural(len(manifest.models), 'pretrained model')}: {plural(len(manifest.cells), 'cell')}. Space "
        f"{escape(manifest.space)}, sweep {escape(manifest.sweep)}, seed {manifest.seed}."
    )


SECTION = Section(text=text, provenance=results_provenance)
