"""Compares two sweeps, A and B: the differences of their settings, and of the scores of the cells that both have.

Scores of a cell are compared only if data, split (by their hash), metric and backbone are the same. Test examples are treated as
paired, the seeds of the two sweeps as independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from reports.data.cells import CellResult, hyperparameters, winner_row
from reports.data.manifest import Manifest
from reports.render.csv_files import write_csv
from reports.render.markdown import MISSING, Markup, escape, fence, paragraphs, plural, points
from reports.render.table import Table
from reports.sections.section import results_provenance
from reports.statistics.analysis import AnalyzedSweep
from reports.statistics.intervals import LEVEL, Estimate, TaskScores
from reports.statistics.multiple_comparisons import holm
from reports.statistics.resampling import score_limits
from reports.statistics.searches import repetitions
from reports.statistics.standings import covariance_of, generator_of
from search_spaces.language import Cell, Dimension, Range
from search_spaces.quantization import recipe_json

NAME = "compare"
HEADER = (
    "Model",
    "Task",
    "Method",
    "A",
    "B",
    "B − A [95 %]",
    "p, corrected",
    "Verdict",
    "Configuration",
    "A, h",
    "B, h",
)


@dataclass(frozen=True, kw_only=True)
class CellComparison:
    """The comparison of one cell of two sweeps.

    a, b: the cell's results in each sweep; None if the sweep does not have the cell.
    difference: mean score of B minus that of A, percent points; None if the scores cannot be compared.
    p_value: p-value of the difference, corrected for the number of cells compared; None if `difference` is None.
    why: the reason if `difference` is None, else "".
    """

    cell: Cell
    a: CellResult | None
    b: CellResult | None
    difference: Estimate | None
    p_value: float | None
    why: str

    @property
    def verdict(self) -> str:
        """Either "tied" (p >= 0.05), "A is better" or "B is better"; the reason `why` if the scores cannot be compared."""
        if self.difference is None or self.p_value is None:
            return self.why
        if self.p_value >= 1 - LEVEL:
            return "tied"
        return "B is better" if self.difference.value > 0 else "A is better"


def write(a: AnalyzedSweep, b: AnalyzedSweep, out: Path) -> Path:
    """Write compare.md, compare.csv and compare.tex into the folder `out` and return the path of compare.md."""
    out.mkdir(parents=True, exist_ok=True)
    shown = table(a, b)
    write_csv(rows(a, b), out / f"{NAME}.csv")
    (out / f"{NAME}.tex").write_text(shown.latex(NAME), encoding="utf-8", newline="\n")
    (out / f"{NAME}.md").write_text(text(a, b, shown) + "\n", encoding="utf-8", newline="\n")
    return out / f"{NAME}.md"


def text(a: AnalyzedSweep, b: AnalyzedSweep, shown: Table) -> str:
    """Return the content of compare.md; `shown` is the table of scores."""
    changed = setup_differences(a.manifest, b.manifest)
    setup = Table(
        header=("Setting", "A", "B"),
        rows=[(name, *values) for name, values in changed.items()],
        align="lll",
        caption=Markup("Differences in the setup."),
    )
    return paragraphs(
        f"# {escape(a.manifest.sweep)} (A) against {escape(b.manifest.sweep)} (B)",
        *(_head(letter, sweep) for letter, sweep in (("A", a), ("B", b))),
        "## Differences in the setup",
        setup.markdown() if changed else "No recorded setting differs.",
        "## Scores",
        f"A: {results_provenance(a).caption}",
        f"B: {results_provenance(b).caption}",
        "Mean ± sample standard deviation of the finals on the test split, percent points. The 95 % intervals of "
        "differences cover variation over seeds and, where predictions of both are in the store, over test examples; they are "
        "not corrected for the number of comparisons. *p* is corrected for the number of cells compared (Holm). "
        "*Tied*: p >= 0.05.",
        shown.markdown(),
    )


def table(a: AnalyzedSweep, b: AnalyzedSweep) -> Table:
    """Return the table of scores, one row per cell of either sweep."""
    lines = [
        (
            *_titles(a, b, pair.cell),
            *(_score(pair.a), _score(pair.b), _shown(pair.difference)),
            *(MISSING if pair.p_value is None else f"{pair.p_value:.3f}", pair.verdict),
            _configurations(a, b, pair.cell),
            *(_hours(sweep, pair.cell) for sweep in (a, b)),
        )
        for pair in pairs(a, b)
    ]
    table_caption = f"A: {escape(a.manifest.sweep)}. B: {escape(b.manifest.sweep)}. {results_provenance(b).caption}"
    return Table(header=HEADER, rows=lines, align="lllrrrrllrr", caption=Markup(table_caption))


def rows(a: AnalyzedSweep, b: AnalyzedSweep) -> pd.DataFrame:
    """Return the content of compare.csv: one row per cell of either sweep, scores in percent points."""
    return pd.DataFrame(
        {
            **vars(pair.cell),
            **{f"mean_{letter}": result.mean if result else None for letter, result in (("a", pair.a), ("b", pair.b))},
            **{f"std_{letter}": result.std if result else None for letter, result in (("a", pair.a), ("b", pair.b))},
            **{f"n_{letter}": len(result.scores) if result else 0 for letter, result in (("a", pair.a), ("b", pair.b))},
            "difference": pair.difference.value if pair.difference else None,
            "half_width": pair.difference.ci_half_width if pair.difference else None,
            "p_corrected": pair.p_value,
            "verdict": pair.verdict,
        }
        for pair in pairs(a, b)
    )


def pairs(a: AnalyzedSweep, b: AnalyzedSweep) -> list[CellComparison]:
    """Compare all cells of either sweep, first those of A in its order; p-values are corrected over all cells compared."""
    cells = dict.fromkeys([*a.manifest.cells, *b.manifest.cells])
    judged = {cell: _difference(a, b, cell) for cell in cells}
    known = {cell: found for cell, found in judged.items() if isinstance(found, Estimate)}
    corrected = dict(zip(known, holm([each.p_value for each in known.values()]), strict=True))
    return [
        CellComparison(
            cell=cell,
            a=a.results.get(cell),
            b=b.results.get(cell),
            difference=known.get(cell),
            p_value=corrected.get(cell),
            why=found if isinstance(found, str) else "",
        )
        for cell, found in judged.items()
    ]


def setup_differences(a: Manifest, b: Manifest) -> dict[str, tuple[str, str]]:
    """Return (value in A, value in B) of every recorded setting that differs, by name; "–" if a sweep does not have it."""
    one, other = _facts(a), _facts(b)
    names = dict.fromkeys([*one, *other])
    found = {name: (one.get(name, MISSING), other.get(name, MISSING)) for name in names}
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _facts(manifest: Manifest) -> dict[str, str]:
    """Return the settings of a sweep that are compared, as texts by name."""
    facts: dict[str, object] = {
        "space": manifest.space,
        "seed": manifest.seed,
        "reduced": "; ".join(manifest.reductions),
    }
    facts |= {"commit": manifest.commit, "uncommitted changes": manifest.dirty, "device": manifest.device}
    facts |= {f"version of {name}": version for name, version in manifest.versions.items()}
    facts |= {f"recipe: {name}": value for name, value in recipe_json(manifest.recipe).items()}
    facts |= {f"budget: {name}": value for name, value in asdict(manifest.budget).items()}
    facts |= {f"model {name}": model.weights for name, model in manifest.models.items()}
    facts |= {f"data of {name}": task.split for name, task in manifest.tasks.items()}
    facts |= {
        f"method {label}: {k}": v for label, m in manifest.methods.items() for k, v in _settings(m.fixed, m.searched)
    }
    return {name: str(value) for name, value in facts.items()}


def _settings(fixed: Mapping[str, object], searched: Mapping[str, Dimension]) -> list[tuple[str, object]]:
    """Return (name, value) of a method's settings; the value of a searched one is its range as text."""
    return [*fixed.items(), *((name, f"searched: {_range(dimension)}") for name, dimension in searched.items())]


def _range(dimension: Dimension) -> str:
    if isinstance(dimension, Range):
        return f"{dimension.low:g} to {dimension.high:g}" + (", in logarithms" if dimension.log else "")
    return ", ".join(str(value) for value in dimension.values)


def _difference(a: AnalyzedSweep, b: AnalyzedSweep, cell: Cell) -> Estimate | str:
    """Return the difference of the cell's mean scores, B minus A, or the reason why they cannot be compared."""
    one, other = a.results.get(cell), b.results.get(cell)
    if one is None or other is None:
        return "only in B" if one is None else "only in A"
    if _identity(a.manifest, cell) != _identity(b.manifest, cell):
        return "other data, metric or model"
    if not one.scores or not other.scores:
        return "no result yet"
    shared = set(one.trials) & set(other.trials)
    if shared:
        return f"{plural(len(shared), 'final')} in common"
    scores = [*other.scores, *one.scores]
    answers = [*(b.predictions.get(run) for run in other.runs), *(a.predictions.get(run) for run in one.runs)]
    metric = a.manifest.tasks[cell.task].score
    covariance = covariance_of(metric, scores, answers, generator_of(a, cell.task))
    column = TaskScores(
        *repetitions([other, one], covariance),
        [sweep.columns[cell.model, cell.task].priors.get(cell.method) for sweep in (b, a)],
        score_limits(metric),
    )
    return column.difference(0, 1) or ("a single search" if one.by_search or other.by_search else "a single seed")


def _identity(manifest: Manifest, cell: Cell) -> tuple[str, str, str]:
    """Return what must be equal for scores to be comparable: hash of data and split, metric, hash of the backbone's weights."""
    task = manifest.tasks[cell.task]
    return task.split, task.score, manifest.models[cell.model].weights


def _head(letter: str, sweep: AnalyzedSweep) -> str:
    done = sum(result.ended for result in sweep.results.values())
    status = (
        f"{letter}: {escape(sweep.manifest.title)}, {done} of {plural(len(sweep.manifest.cells), 'cell')} complete."
    )
    return paragraphs(status, fence(sweep.command or "unknown"))


def _titles(a: AnalyzedSweep, b: AnalyzedSweep, cell: Cell) -> tuple[str, str, str]:
    manifest = a.manifest if cell in a.manifest.cells else b.manifest
    return manifest.models[cell.model].title, manifest.tasks[cell.task].title, manifest.methods[cell.method].title


def _score(result: CellResult | None) -> str:
    if result is None or result.mean is None:
        return MISSING
    return (
        points(result.mean)
        + (f" ± {points(result.std)}" if result.std is not None else "")
        + f" (n = {len(result.scores)}{f', {result.collapsed} collapsed' if result.collapsed else ''})"
    )


def _chosen(sweep: AnalyzedSweep, cell: Cell) -> dict[str, str] | None:
    """Return the winner's hyperparameters, those of several searches one after the other; None without a winner."""
    rows = [winner_row(sweep, cell, number) for number in range(sweep.manifest.budget.searches)]
    found = [hyperparameters(row) for row in rows if row is not None]
    names = dict.fromkeys(name for each in found for name in each)
    return {name: ", ".join(each.get(name, MISSING) for each in found) for name in names} if found else None


def _shown(difference: Estimate | None) -> str:
    if difference is None:
        return MISSING
    low, high = difference.interval
    return f"{difference.value:+.2f} [{points(low)}, {points(high)}]"


def _configurations(a: AnalyzedSweep, b: AnalyzedSweep, cell: Cell) -> str:
    """Return the hyperparameters in which the two winners differ, as "name: A / B"; "–" unless both sweeps have a winner."""
    one, other = (_chosen(sweep, cell) for sweep in (a, b))
    if one is None or other is None:
        return MISSING
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    return ", ".join(f"{name}: {one.get(name, MISSING)} / {other.get(name, MISSING)}" for name in names) or "the same"


def _hours(sweep: AnalyzedSweep, cell: Cell) -> str:
    """Return the hours of training of the cell, search and finals together, as text; "–" if the sweep does not have the cell."""
    spent = sweep.spending.set_index(["model", "task", "method"])
    key = (cell.model, cell.task, cell.method)
    if key not in spent.index:
        return MISSING
    return f"{float(spent.loc[key, 'search_hours'] + spent.loc[key, 'final_hours']):.3g}"
