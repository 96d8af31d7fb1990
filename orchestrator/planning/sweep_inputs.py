"""Prepares the models, tasks and tokens files of a sweep on this machine, and builds its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.planning.plan import Plan, own_methods_need_family
from orchestrator.run_options import RunOptions
from search_spaces.language import TRAINING, Cell, Scalar, Space, task_name
from search_spaces.peft_rows import PEFT
from search_spaces.plugins import identity
from search_spaces.records import Counts, Phase, Trial
from trainables.backbone.models import Model, check_model_length, no_family, title
from trainables.methods.peft_row import installed_peft
from trainables.tasks.task_data import Loaded
from trainables.tasks.task_loading import constant_score, load
from trainables.tasks.tokens import prepare, summarise
from trainables.training.parameter_counts import build, count


@dataclass(frozen=True, kw_only=True)
class SweepInputs:
    """The models, tasks and tokens files that the trials of a space need, by name."""

    space: Space
    models: Mapping[str, Model]
    tasks: Mapping[str, Loaded]
    # Paths of the tokens files by (model, task, number of the search).
    tokens: Mapping[tuple[str, str, int], Path]

    def trial(self, cell: Cell, hyperparameters: dict[str, Scalar], seed: int, phase: Phase, search: int = 0) -> Trial:
        """Return the trial of a configuration, with its fixed and searched settings and the fingerprints of model and data.

        `search`: number of the cell's search, from 0.
        """
        entry = self.space.entry(cell.method)
        values: dict[str, Any] = {**self.space.values_of(entry), **hyperparameters}
        settings = {name: value for name, value in values.items() if name not in TRAINING}
        recipe = self.space.recipe.of_task(cell.task)
        return Trial(
            cell=cell,
            method=entry.name,
            settings=settings,
            lr=float(values["lr"]),
            batch_size=int(values["batch_size"]),
            seed=seed,
            phase=phase,
            recipe=replace(recipe, epochs=int(values.get("epochs", recipe.epochs))),
            weights=self.models[cell.model].fingerprint,
            split=self.tasks[cell.task].of_search(search).fingerprint,
            ablated=entry.ablated and phase == "final",
            search=search,
            plugin=", ".join(f"{package} {version}" for package, version in self._plugins(cell).items()),
        )

    def _plugins(self, cell: Cell) -> dict[str, str]:
        """Return the packages from which the cell's method, task and model family come, with their identities."""
        method, family = self.space.entry(cell.method).name, self.models[cell.model].family
        own = {PEFT: str(installed_peft())} if method == PEFT else {}
        return own | identity(("methods", method), ("tasks", cell.task), ("families", family))

    def counts(self, trial: Trial) -> Counts | None:
        """Return the parameter counts of a trial, computed from shapes without building the model; None for a row of peft."""
        if trial.method == PEFT:
            return None
        shape = self.models[trial.cell.model].shape
        return count(build(trial.method, trial.settings, shape), shape, self.tasks[trial.cell.task].task.outputs)

    def sources(self) -> dict[str, str]:
        """Return where device workers find each model, by name: the directory of a local model, else its name on the Hub."""
        return {name: str(model.path) if Path(name).is_dir() else name for name, model in self.models.items()}

    def cut_notes(self) -> dict[str, tuple[str, ...]]:
        """Return sentences about examples, of first searches, that were cut to the largest number of tokens, by task."""
        most = self.space.recipe.max_length
        found: dict[str, dict[str, list[str]]] = {}
        first = {(model, task): path for (model, task, search), path in self.tokens.items() if not search}
        for (model, task), path in first.items():
            counts = ", ".join(f"{count} in {part}" for part, count in summarise(path).cut.items() if count.cut)
            if counts:
                found.setdefault(task, {}).setdefault(counts, []).append(title(model))
        return {
            task: tuple(
                f"examples with more than {most} tokens are cut to that, for {', '.join(names)}: {counts}"
                for counts, names in by_counts.items()
            )
            for task, by_counts in found.items()
        }

    def constant_scores(self) -> dict[tuple[str, int], float]:
        """Return the validation score of the constant prediction in percent points, by task and number of the search."""
        numbers = range(self.space.budget.searches)
        return {(name, n): constant_score(task.of_search(n)) for name, task in self.tasks.items() for n in numbers}

    def mean_lengths(self) -> list[float]:
        """Return the mean number of tokens of a training example, one value for each tokens file."""
        return [summarise(path).mean_length for path in self.tokens.values()]


def load_tasks(plan: Plan, options: RunOptions) -> dict[str, Loaded]:
    """Read and split the tasks of a plan, by name. Raises MissingData if the data of a task is not on this machine."""
    recipe = plan.space.recipe
    return {
        task_name(task): load(
            task,
            data_dir=options.data_dir,
            folder=plan.space.folder,
            train_examples=recipe.limit("train_examples", task_name(task)),
            test_examples=recipe.limit("test_examples", task_name(task)),
            searches=plan.space.budget.searches,
        )
        for task in plan.space.tasks
    }


def prepare_inputs(plan: Plan, models: Mapping[str, Model], tasks: Mapping[str, Loaded], out: Path) -> SweepInputs:
    """Tokenise each task for each model once, into tokens files in `out`/tokens, which the trials only read.

    Raises ValueError if a model, downloaded since the plan was made, has too few positions or embeddings for the tokens.
    """
    for model in models.values():
        if model.known_shape is None:
            own_methods_need_family(plan.space, model.name, no_family(model.family))
        check_model_length(model, plan.space.recipe.max_length)
    tokens = {
        (name, task, n): prepare(examples.of_search(n), str(model.path), plan.space.recipe.max_length, out / "tokens")
        for name, model in models.items()
        for task, examples in tasks.items()
        for n in range(plan.space.budget.searches)
    }
    return SweepInputs(space=plan.space, models=models, tasks=tasks, tokens=tokens)
