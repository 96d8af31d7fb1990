"""Makes the plan of a sweep from a space and the options: checks it and counts its trials, without importing torch or Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.planning.fit_to_models import fit
from orchestrator.run_options import RunOptions
from search_spaces.language import (
    TRAINING,
    Budget,
    Choice,
    Dimension,
    FileTask,
    MethodEntry,
    Range,
    Recipe,
    Scalar,
    Space,
    grid_size,
    task_name,
)
from search_spaces.loading import nearest
from search_spaces.records import Counts
from trainables.backbone import models
from trainables.methods import METHODS
from trainables.methods.spec import Shape
from trainables.tasks.task_data import Task
from trainables.tasks.task_loading import check_files, describe
from trainables.training.parameter_counts import build, count

# Options that replace a value of the space: (flag, field of RunOptions, field of Space, field of that object).
REPLACED = (
    ("--trials", "num_configurations", "budget", "trials"),
    ("--seeds", "final_seeds", "budget", "final_seeds"),
    ("--epochs", "epochs", "recipe", "epochs"),
    ("--precision", "precision", "recipe", "precision"),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked space. `reductions` has a phrase for each way in which the options changed the space as written.

    `shapes` has the shape of each model, None if the model is not on this machine; `tasks` the description of each task, with the
    classes of the user's own files, unless these are Parquet; `data_notes` sentences about the labels of these files, by task.
    """

    space: Space
    reductions: tuple[str, ...]
    shapes: Mapping[str, Shape | None]
    tasks: Mapping[str, Task]
    data_notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def num_configurations(self, entry: MethodEntry) -> int:
        """Return how many configurations a cell of this row tries: the budget's `trials`, or the grid's size if smaller."""
        return int(min(self.space.budget.trials, grid_size(self.space.dimensions_of(entry))))

    def epochs(self, entry: MethodEntry) -> tuple[int, int]:
        """Return the smallest and the largest maximum number of epochs that a trial of this row can have."""
        values = self.space.values_of(entry).get("epochs", self.space.recipe.epochs)
        ends = [int(end) for end in _ends(values)]
        return min(ends), max(ends)

    @property
    def trials(self) -> int:
        """The number of trials of the whole sweep, finals included."""
        budget = self.space.budget
        tries = (self.num_configurations(self.space.entry(cell.method)) for cell in self.space.cells)
        return budget.searches * sum(number * budget.search_seeds + budget.final_seeds for number in tries)

    @property
    def outputs(self) -> list[int]:
        """The different numbers of outputs that the tasks' heads have, in order; 2 for a task whose classes are not known."""
        return sorted({task.outputs or 2 for task in self.tasks.values()} or {2})

    def counts(self, entry: MethodEntry, shape: Shape) -> tuple[Counts, Counts]:
        """Return the parameter counts with the fewest and with the most trained parameters, over the row's settings and tasks."""
        settings = corners(self.space.values_of(entry))
        found = [count(build(entry.name, each, shape), shape, outputs) for each in settings for outputs in self.outputs]
        return min(found, key=lambda c: c.trained), max(found, key=lambda c: c.trained)


def make_plan(space: Space, options: RunOptions) -> Plan:
    """Apply the options to the space and check everything that can be checked quickly.

    Raises ValueError for a mistake in the space or the options, MissingData if a data file is not on this machine.
    """
    written = _with_own_search(space)
    space, reductions = apply(written, options)
    tasks = {task_name(task): describe(task) for task in space.tasks}
    shapes = {name: _shape(name, space.recipe.max_length) for name in space.models}
    if options.models is not None:
        own = [shape for name in written.models if (shape := models.peek(name))]
        given = [shape for shape in shapes.values() if shape]
        space, told = fit(space, own, given, droppable=options.methods is None)
        reductions += [f"on {', '.join(space.models)}: {each}" for each in told]
    for entry in space.methods:
        for name, shape in shapes.items():
            _check_settings(space, entry, name, shape)
    notes: dict[str, tuple[str, ...]] = {}
    for task in space.tasks:
        labels, name = check_files(task, options.data_dir, space.folder), task_name(task)
        notes[name] = labels.notes if labels else ()
        if labels:
            known = {"outputs": labels.outputs, "classes": labels.classes, "positive": labels.positive}
            tasks[name] = replace(tasks[name], **known)
    return Plan(space=space, reductions=tuple(reductions), shapes=shapes, tasks=tasks, data_notes=notes)


def _with_own_search(space: Space) -> Space:
    """Return the space with each method's own search dimensions added where a row asks for them (`own_search`).

    Raises ValueError for a method that does not exist.
    """
    for entry in space.methods:
        if entry.name not in METHODS:
            raise ValueError(f"method {entry.name!r} is not known: {nearest(entry.name, METHODS)}")
    filled = [
        replace(e, settings={**METHODS[e.name].search, **e.settings}, own_search=False) if e.own_search else e
        for e in space.methods
    ]
    return replace(space, methods=tuple(filled))


def apply(space: Space, options: RunOptions) -> tuple[Space, list[str]]:
    """Return the space with the models, tasks, methods and budgets of the options, and a phrase for each change.

    Names are put into the order of the space, so that the same names in another order give the same sweep. Raises ValueError for
    names that the space does not have and for values out of range.
    """
    reductions: list[str] = []
    changes: dict[str, Any] = {}
    if options.models is not None and set(options.models) != set(space.models):
        changes["models"] = tuple(_in_order(options.models, space.models))
        reductions.append(f"--models {','.join(changes['models'])} instead of {','.join(space.models)}")
    if options.tasks is not None:
        tasks: dict[str, str | FileTask] = {task_name(task): task for task in space.tasks}
        kept = _subset("task", options.tasks, tasks)
        changes["tasks"] = tuple(tasks[name] for name in kept)
        reductions += _fewer("--tasks", kept, tasks)
    if options.methods is not None:
        rows = {entry.label: entry for entry in space.methods}
        kept = _subset("method", options.methods, rows)
        changes["methods"] = tuple(rows[name] for name in kept)
        reductions += _fewer("--methods", kept, rows)
    for flag, option, part, name in REPLACED:
        value, record = getattr(options, option), changes.get(part, getattr(space, part))
        if value is not None and value != getattr(record, name):
            reductions.append(f"{flag} {value} instead of {getattr(record, name)}")
            changes[part] = _changed(record, name, f"{flag} {value}", value)
    if space.recipe.epochs != changes.get("recipe", space.recipe).epochs:
        changes |= _not_searched("epochs", space.search, changes.get("methods", space.methods))
    return replace(space, **changes), reductions


def _not_searched(
    name: str, search: Mapping[str, Scalar | Dimension], methods: Sequence[MethodEntry]
) -> dict[str, Any]:
    """Return the fields `search` and `methods` of a space without this hyperparameter, whose value the command line sets."""
    own = [replace(e, settings={k: v for k, v in e.settings.items() if k != name}) for e in methods]
    return {"search": {k: v for k, v in search.items() if k != name}, "methods": tuple(own)}


def _subset(kind: str, names: Sequence[str], known: Mapping[str, object]) -> list[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"{kind} {name!r} is not in this space: {nearest(name, known)}")
    return _in_order(names, known)


def _in_order(names: Sequence[str], order: Iterable[str]) -> list[str]:
    known = [name for name in order if name in names]
    return known + [name for name in names if name not in known]


def _changed(record: Recipe | Budget, name: str, where: str, value: int | str) -> Recipe | Budget:
    """Return the record with the field `name` set to `value`. A ValueError names the option `where`, not the field."""
    try:
        return replace(record, **{name: value})  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).rpartition(': ')[2]}") from None


def _fewer(flag: str, names: Sequence[str], known: Mapping[str, object]) -> list[str]:
    return [f"{flag} {','.join(names)}, {len(names)} of {len(known)}"] if len(names) < len(known) else []


def _shape(name: str, max_length: int) -> Shape | None:
    """Return the model's shape, None if it is not on this machine, after a check of its files.

    Raises ValueError for a model that cannot be used, and for a name without "/" that is neither a known model nor a
    directory: it is probably misspelled.
    """
    shape = models.check(name, max_length)
    repository = name.partition("@")[0]
    if shape is None and "/" not in repository and repository not in (*models.KNOWN_CONFIGS, "minilm"):
        known = nearest(name, [*models.KNOWN_CONFIGS, "minilm"])
        raise ValueError(f"model {name!r} is not known: {known}; others by owner/name of the Hub, or by ./directory")
    return shape


def _check_settings(space: Space, entry: MethodEntry, model: str, shape: Shape | None) -> None:
    values = space.values_of(entry)
    recipe = replace(space.recipe, epochs=min(int(e) for e in _ends(values.get("epochs", space.recipe.epochs))))
    try:
        for settings in corners(values):
            method = build(entry.name, settings, shape)
            method.check_recipe(recipe, shape)
        for name, default in type(method)().settings().items():
            if isinstance(values.get(name), Range) and isinstance(default, int):
                raise ValueError(f"{name} is a whole number and a range draws fractions; list them: {name}=choice(...)")
    except ValueError as error:
        raise ValueError(f"method {entry.label!r} on {model}: {error}") from None


def corners(values: Mapping[str, Scalar | Dimension]) -> list[dict[str, Scalar]]:
    """Return settings of a method, few enough to check all, in which each listed value and both ends of each range occur.

    Learning rate, batch size and epochs are left out.
    """
    own = {key: _ends(value) for key, value in values.items() if key not in TRAINING}
    first = {key: ends[0] for key, ends in own.items()}
    return [first] + [{**first, key: value} for key, ends in own.items() for value in ends[1:]]


def _ends(value: Scalar | Dimension) -> tuple[Scalar, ...]:
    if isinstance(value, Choice):
        return value.values
    return (value.low, value.high) if isinstance(value, Range) else (value,)
