"""Makes the plan of a sweep from a space and the options: checks it and counts its trials, without importing torch or Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.planning.fit_to_models import fit
from orchestrator.planning.peft_check import TrainedRange, check_installed, check_peft_rows
from orchestrator.planning.space_options import apply
from orchestrator.run_options import RunOptions
from search_spaces.dimensions import grid_size
from search_spaces.language import (
    TRAINING,
    Choice,
    Dimension,
    MethodEntry,
    Range,
    Scalar,
    Space,
    task_name,
)
from search_spaces.loading import nearest
from search_spaces.peft_rows import PEFT
from search_spaces.records import Counts
from trainables.backbone import models
from trainables.methods.spec import Shape
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.task_data import Task
from trainables.tasks.task_loading import check_files, describe
from trainables.training.parameter_counts import build, count


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked space. `reductions` has a phrase for each way in which the options changed the space as written.

    `shapes` has the shape of each model, None if it is not on this machine or its type has no family here; `tasks` the
    description of each task, with the classes of the user's own files, unless these are Parquet; `data_notes` sentences about
    the labels of these files, by task.
    `peft`: what rows of the library peft train, by (model, label), where it is known.
    """

    space: Space
    reductions: tuple[str, ...]
    shapes: Mapping[str, Shape | None]
    tasks: Mapping[str, Task]
    data_notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    peft: Mapping[tuple[str, str], TrainedRange] = field(default_factory=dict)

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

    def one_size(self, entry: MethodEntry) -> bool:
        """Return whether all configurations of a row are known to train equally many parameters, whatever the model."""
        if entry.name == PEFT:
            known = [self.peft.get((model, entry.label)) for model in self.shapes]
            return len(self.outputs) == 1 and all(each is not None and each.least == each.most for each in known)
        settings, outputs = corners(self.space.values_of(entry)), self.outputs[0]
        return all(
            shape is not None
            and len({count(build(entry.name, s, shape), shape, outputs).trained for s in settings}) == 1
            for shape in self.shapes.values()
        )


def make_plan(space: Space, options: RunOptions) -> Plan:
    """Apply the options to the space and check everything that can be checked quickly.

    Raises ValueError for a mistake in the space or the options, MissingData if a data file is not on this machine.
    """
    written = space.models
    space, reductions = apply(space, options)
    tasks = {task_name(task): describe(task) for task in space.tasks}
    check_installed(space)
    shapes = {name: _shape(space, name) for name in space.models}
    if options.models is not None:
        own = [shape for name in written if (shape := _peek(name))]
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
            tasks[name] = replace(tasks[name], outputs=labels.outputs, classes=labels.classes, positive=labels.positive)
    rows = {entry.label: corners(space.values_of(entry)) for entry in space.methods if entry.name == PEFT}
    heads = sorted({(task.outputs or 2, task.form.name == REGRESSION.name) for task in tasks.values()})
    plan = Plan(
        space=space,
        reductions=tuple(reductions),
        shapes=shapes,
        tasks=tasks,
        data_notes=notes,
        peft=check_peft_rows(space, rows, heads),
    )
    if space.budget.search == "multi" and all(map(plan.one_size, space.methods)):
        raise ValueError(
            "budget: search = 'multi' looks for high scores with few trained parameters, but in each row "
            f"({', '.join(entry.label for entry in space.methods)}) all configurations train equally many: search a setting that "
            "changes their number, such as r=choice(8, 32), or take Budget(search='tpe')"
        )
    return plan


def _peek(name: str) -> Shape | None:
    try:
        return models.peek(name)
    except models.NoFamily:
        return None


def _shape(space: Space, name: str) -> Shape | None:
    """Return the model's shape after a check of its files; None if it is not on this machine or its type has no family here.

    Raises ValueError for a model that cannot be used, with rows other than those of peft if its type has no family; and for a
    name without "/" that is neither a known model nor a directory: it is probably misspelled.
    """
    try:
        shape = models.check(name, space.recipe.max_length)
    except models.NoFamily as error:
        own_methods_need_family(space, name, str(error))
        models.check_without_family(name, space.recipe.max_length)
        return None
    repository = name.partition("@")[0]
    if shape is None and "/" not in repository and repository not in models.NAMES:
        known = nearest(name, models.NAMES)
        raise ValueError(f"model {name!r} is not known: {known}; others by owner/name of the Hub, or by ./directory")
    return shape


def own_methods_need_family(space: Space, name: str, reason: str) -> None:
    """Raise ValueError if the space has rows other than those of peft, for its model `name` of a type without a family here."""
    own = [entry.label for entry in space.methods if entry.name != PEFT]
    if own:
        raise ValueError(
            f"{reason}. So the cells of the methods {', '.join(own)} on {name} cannot be trained: write a space for this model "
            "with rows of peft alone"
        ) from None


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
