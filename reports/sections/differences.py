"""Which methods differ significantly from the best one: intervals, corrected p-values, and smallest visible differences.

Methods are compared within a column of the results table: one model and task, or a model's average over tasks.
"""

from __future__ import annotations

import pandas as pd

from reports.plots.method_styles import methods_by_family, ordered_cells
from reports.render.markdown import MISSING, Markup, escape, paragraphs, points
from reports.render.table import Table
from reports.sections.results import collapses
from reports.sections.section import Section, results_provenance, varied
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.standings import Standing
from search_spaces.language import Budget, Cell

AVERAGE = "average"
NONE = (None, None)
HEADER = ("Model", "Task", "Method", "Mean [95 %]", "Behind the best by [95 %]", "p, corrected", "Verdict")


def text(sweep: AnalyzedSweep) -> str:
    judged = _all(sweep)
    if not any(standing.gap for _, standing in judged):
        return ""
    seeds_alone = sorted({where[1] for where, standing in judged if standing.gap and not standing.with_examples})
    missing = (
        f"**Seeds alone:** {escape(', '.join(seeds_alone))} lack predictions of some finals in the store, so that their "
        "intervals do not cover another choice of test examples. "
        if seeds_alone
        else ""
    )
    budget = sweep.manifest.budget
    return paragraphs(
        f"## Which differences are real {varied(budget)}",
        tables(sweep)["differences"].markdown(("Model", "Task")),
        f"{results_provenance(sweep).reminder} {_question(budget)}",
        "*Worse*: p < 0.05; *tied*: p >= 0.05, they cannot be told apart. *p* is corrected for all pairs of the column "
        "(Shaffer), because the best was chosen by the same numbers; intervals (95 %) are not. Intervals cover the variance "
        f"between {_repeated(budget)}, drawn towards the column's mean the more alike the cells are (empirical Bayes; cells with "
        "a collapsed or diverged final are left out), and the choice of test examples (paired bootstrap), with quantiles of "
        "Student's t (docs/statistics.md). The smallest visible differences in the table of results are those that would have "
        f"been significant with this spread and the strictest correction. {missing}{_collapse_warning(sweep)}".strip(),
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    judged = _all(sweep)
    manifest = sweep.manifest
    decided = {where[:2] for where, standing in judged if standing.verdict == "worse"}
    names = {AVERAGE: "Average", **{name: task.title for name, task in manifest.tasks.items()}}
    lines = [
        (
            *(manifest.models[model].title, names[task], manifest.methods[method].title),
            _mean(sweep, (model, task, method), standing),
            _shown(standing.gap.value if standing.gap else None, standing.gap_interval),
            *(_p_value(standing), _shown_verdict(standing, (model, task) in decided)),
        )
        for (model, task, method), standing in judged
    ]
    table_caption = Markup(
        f"Differences to the best of each column, in percent points. {results_provenance(sweep).caption}"
    )
    return {"differences": Table(header=HEADER, rows=lines, align="lllrrrl", caption=table_caption)}


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per method and column; the task of the average over tasks is "average". Scores and differences in percent points.

    `found_in_4_of_5` is the true difference that the test finds with probability 0.8.
    """
    columns = ("model", "task", "method", "value", "low", "high", "behind", "behind_low", "behind_high")
    more = ("p_corrected", "comparisons", "verdict", "smallest_visible", "found_in_4_of_5", "covers_examples")
    found = [
        (
            *(*where, standing.value, *(standing.interval or NONE)),
            *(standing.gap.value if standing.gap else None, *(standing.gap_interval or NONE)),
            *(standing.p_value, standing.comparisons, standing.verdict, standing.smallest_significant_gap),
            standing.gap.detectable_difference(standing.comparisons) if standing.gap else None,
            standing.with_examples,
        )
        for where, standing in _all(sweep)
    ]
    return pd.DataFrame(found, columns=[*columns, *more])


def _all(sweep: AnalyzedSweep) -> list[tuple[tuple[str, str, str], Standing]]:
    """Every standing with its (model, task, method), in the order of the table.

    A model's averages over tasks follow its tasks; a sweep of a single task has no averages.
    """
    judged = sweep.standings
    found = []
    for model in sweep.manifest.models:
        found += [
            ((model, c.task, c.method), judged[c]) for c in ordered_cells(sweep) if c in judged and c.model == model
        ]
        if len(sweep.manifest.tasks) > 1:
            averages = sweep.average_standings[model]
            found += [((model, AVERAGE, m), averages[m]) for m in methods_by_family(sweep, model) if m in averages]
    return found


def _mean(sweep: AnalyzedSweep, where: tuple[str, str, str], standing: Standing) -> str:
    """A mean with its interval and the number of collapsed finals as text."""
    model, task, method = where
    result = None if task == AVERAGE else sweep.results[Cell(model=model, task=task, method=method)]
    shown = _shown(standing.value, standing.interval)
    return f"{shown}, {collapses(result)}" if result and collapses(result) else shown


def _collapse_warning(sweep: AnalyzedSweep) -> str:
    """A sentence on what intervals of cells with a collapsed final do not cover; "" if no final collapsed."""
    if not any(collapses(result) for result in sweep.results.values()):
        return ""
    return (
        "**Collapsed finals** are counted in means and intervals. How often a seed collapses cannot be known from so few: "
        "the interval of such a mean covers the mean over all seeds less often than in 95 % of cases. "
    )


def _shown(value: float | None, interval: tuple[float, float] | None) -> str:
    """A value with its interval as text, percent points: "71.20 [70.10, 72.30]"."""
    return points(value) + (f" [{points(interval[0])}, {points(interval[1])}]" if interval else "")


def _p_value(standing: Standing) -> str:
    """The corrected p-value as text; `MISSING` for the best method and if it cannot be judged."""
    if standing.p_value is None:
        return MISSING
    return "< 0.001" if standing.p_value < 0.001 else f"{standing.p_value:.3f}"


def _question(budget: Budget) -> str:
    if budget.searches > 1:
        return (
            f"Each cell was searched {budget.searches} times, each time with another validation split and other seeds: would the "
            "best still be ahead if all were searched again, and with other test examples?"
        )
    return (
        "Would the best *configurations found* still be ahead with other seeds and other test examples? Each cell was searched "
        "once, so another search may find others: between identical methods, one search each shows a difference in 21 to 40 % of "
        "simulated columns. `Budget(searches=3)` repeats the searches and compares methods."
    )


def _repeated(budget: Budget) -> str:
    return "the means of the searches" if budget.searches > 1 else "seeds"


def _shown_verdict(standing: Standing, decided: bool) -> str:
    """The verdict for readers: a best method is called so only where another one of the column is worse (`decided`)."""
    return "highest mean" if standing.verdict == "best" and not decided else standing.verdict


SECTION = Section(text=text, rows=rows, tables=tables, provenance=results_provenance)
