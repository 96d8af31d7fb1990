"""How results were selected: search, finals and training; the data of each task; and the software and machine."""

from __future__ import annotations

from reports.data.manifest import Manifest
from reports.render.markdown import MISSING, Markup, bullets, count, escape, paragraphs, points
from reports.render.table import Table
from reports.sections.section import Section, mean_of, most, several, unit
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Budget, Recipe
from search_spaces.quantization import precision_words

# Metrics that are the share of correct predictions: one of n test examples changes them by 100 / n percent points.
_SHARES = ("accuracy",)


def text(sweep: AnalyzedSweep) -> str:
    return paragraphs(
        "## How the numbers were selected",
        bullets(_selection(sweep.manifest)),
        _data(sweep),
        "## Environment",
        bullets(_environment(sweep)),
    )


def _selection(manifest: Manifest) -> list[Markup]:
    """How trials are searched, selected and trained, as a list."""
    budget, recipe = manifest.budget, manifest.recipe
    seeds = "one fresh seed" if budget.final_seeds == 1 else f"{budget.final_seeds} fresh seeds"
    return [
        Markup(
            f"Search: {most(budget)} per {unit(budget)}, as many for every method, each with "
            f"{'one seed' if budget.search_seeds == 1 else f'{budget.search_seeds} seeds'}{budget.proposed}; "
            f"{_stopping(manifest)}"
            f"{several(budget)}."
        ),
        Markup(
            f"Selection: by the best epoch's score on the validation split{mean_of(budget)}: a part of the training data, the "
            f"same for every method and seed{_own_split(budget)}. The test split is not used for it."
        ),
        Markup(
            f"Finals: the winner of each {unit(budget)} is trained again from scratch on {seeds}, never stopped by ASHA, and "
            "scored once on the test split with the parameters of its best validation epoch."
        ),
        Markup(
            f"Training: up to {recipe.epochs} epochs, patience {recipe.patience}, AdamW, warm-up over "
            f"{100 * recipe.warmup:g} % of the steps, linear decay, weight decay {recipe.weight_decay:g}, up to "
            f"{recipe.max_length} tokens{_precision(recipe)}."
        ),
    ]


def _precision(recipe: Recipe) -> str:
    words = precision_words(recipe)
    return f"; {words}" if words else ""


def _own_split(budget: Budget) -> str:
    return " of one search; each search of a cell has another one" if budget.searches > 1 else ""


def _stopping(manifest: Manifest) -> str:
    """From which epoch on ASHA stops trials of the search, as a part of a sentence."""
    budget = manifest.budget
    if budget.grace >= manifest.recipe.epochs:
        return "none of them is stopped by ASHA"
    more = budget.comparisons(manifest.recipe.epochs)
    return f"ASHA stops weak ones from epoch {budget.grace} on (factor {budget.reduction}){more}"


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    manifest = sweep.manifest
    header = (
        "Task",
        "Score",
        "Train",
        "Validation",
        "Test",
        "Constant prediction",
        "Test split is",
    )
    rows = [
        (
            *(task.title, task.score_title, count(task.train), count(task.validation), count(task.test)),
            *(points(task.majority), task.test_source or MISSING),
        )
        for task in manifest.tasks.values()
    ]
    return {"tasks": Table(header=header, rows=rows, align="llrrrrl", caption=Markup("Tasks; sizes in examples."))}


def _data(sweep: AnalyzedSweep) -> str:
    return paragraphs(
        tables(sweep)["tasks"].markdown(),
        "Sizes in examples. *Constant prediction*: the test score, percent points, of always answering the majority class (or "
        f"the mean).{_steps(sweep.manifest)}",
        bullets(f"{task.title}: {note}" for task in sweep.manifest.tasks.values() for note in task.notes),
    )


def _steps(manifest: Manifest) -> str:
    """How much one test example changes the accuracy of one run, by task; "" without a task that is scored by it."""
    tasks = [task for task in manifest.tasks.values() if task.score in _SHARES and task.test]
    steps = ", ".join(f"{points(100 / task.test)} on {escape(task.title)}" for task in tasks)
    return (
        f" One test example changes the accuracy of a run by {steps}; differences of that size mean nothing."
        if steps
        else ""
    )


def _code(commit: str, dirty: bool) -> str:
    """The commit as text; `dirty`: the working tree had uncommitted changes."""
    return f"commit {escape(commit or 'unknown')}" + (", with uncommitted changes" if dirty else "")


def _environment(sweep: AnalyzedSweep) -> list[Markup]:
    manifest = sweep.manifest
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    last, *before = (_code(*each) for each in ((manifest.commit, manifest.dirty), *manifest.earlier_code))
    earlier = f"; earlier calls of this sweep: {'; '.join(before)}" if before else ""
    models = "; ".join(
        f"{facts.title}: {count(facts.total)} parameters, {facts.source or name}, "
        f"{f'commit {facts.commit} of the Hub, ' if facts.commit else ''}weights {facts.weights or 'unknown'}"
        for name, facts in manifest.models.items()
    )
    data = ", ".join(
        f"{task.title} {' '.join((task.split, *task.more_splits)) or 'unknown'}" for task in manifest.tasks.values()
    )
    return [
        Markup(f"Device: {escape(manifest.device or 'unknown')}"),
        Markup(f"Versions: {escape(versions or 'unknown')}"),
        Markup(f"Code: {last}{earlier}"),
        Markup(f"Encoders: {escape(models)}"),
        Markup(f"Data (fingerprints of texts, labels and split): {escape(data)}"),
    ]


SECTION = Section(text=text, tables=tables)
