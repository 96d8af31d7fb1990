"""The models, examples and token files of a sweep on this machine, and the trials that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.planning.plan import Plan
from orchestrator.run_options import RunOptions
from search_spaces.language import TRAINING, Cell, Scalar, Space, task_name
from search_spaces.records import Counts, Phase, Trial
from trainables.backbone.models import Model
from trainables.tasks.task_data import Loaded
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read
from trainables.training.parameter_counts import build, count


@dataclass(frozen=True, kw_only=True)
class SweepInputs:
    """Everything that the trials of a space need on this machine."""

    space: Space
    models: Mapping[str, Model]
    tasks: Mapping[str, Loaded]
    # Token files by (model, task).
    tokens: Mapping[tuple[str, str], Path]

    def trial(self, cell: Cell, hyperparameters: dict[str, Scalar], seed: int, phase: Phase) -> Trial:
        """Return the trial of a configuration: fixed and searched settings, and what identifies its inputs."""
        entry = self.space.entry(cell.method)
        values: dict[str, Any] = {**self.space.values_of(entry), **hyperparameters}
        settings = {name: value for name, value in values.items() if name not in TRAINING}
        recipe = self.space.recipe
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
            split=self.tasks[cell.task].fingerprint,
            ablated=entry.ablated and phase == "final",
        )

    def counts(self, trial: Trial) -> Counts:
        """Return the numbers of parameters of a trial, which are computed and not measured."""
        shape = self.models[trial.cell.model].shape
        return count(build(trial.method, trial.settings, shape), shape, self.tasks[trial.cell.task].task.outputs)

    def sources(self) -> dict[str, str]:
        """Return where the process of a trial finds each model: a directory for local ones, the name for the others."""
        return {name: str(model.path) if Path(name).is_dir() else name for name, model in self.models.items()}

    def mean_lengths(self) -> list[float]:
        """Return the mean number of tokens of a training example, for each model and task."""
        parts = (read(path).train for path in self.tokens.values())
        return [len(part.ids) / len(part) for part in parts]


def load_tasks(plan: Plan, options: RunOptions) -> dict[str, Loaded]:
    """Read and split the tasks of a plan. Raise MissingData where data is not on this machine."""
    recipe = plan.space.recipe
    return {
        task_name(task): load(
            task,
            data_dir=options.data_dir,
            folder=plan.space.folder,
            train_examples=recipe.train_examples,
            test_examples=recipe.test_examples,
        )
        for task in plan.space.tasks
    }


def prepare_inputs(plan: Plan, models: Mapping[str, Model], tasks: Mapping[str, Loaded], out: Path) -> SweepInputs:
    """Tokenise each task for each model once, into `out`; trials only read."""
    tokens = {
        (name, task): prepare(examples, str(model.path), plan.space.recipe.max_length, out / "tokens")
        for name, model in models.items()
        for task, examples in tasks.items()
    }
    return SweepInputs(space=plan.space, models=models, tasks=tasks, tokens=tokens)
