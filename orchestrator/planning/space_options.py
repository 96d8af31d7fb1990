"""Applies the options of the command line to a space: which models, tasks and methods, and other values of its fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.planning.space_fields import set_fields
from orchestrator.run_options import RunOptions
from search_spaces.language import FileTask, MethodEntry, Space, own_search, task_name
from search_spaces.loading import nearest
from search_spaces.peft_rows import PEFT
from search_spaces.quantization import check_unused
from trainables.methods import METHODS
from trainables.methods.lookup import method_type

# Options that set one field of the space: flag, field of RunOptions, and the path of the field as in --set.
FLAGS = (
    ("--trials", "num_configurations", "budget.trials"),
    ("--seeds", "final_seeds", "budget.final_seeds"),
    ("--epochs", "epochs", "recipe.epochs"),
    ("--train-examples", "train_examples", "recipe.train_examples"),
    ("--precision", "precision", "recipe.precision"),
)


def apply(space: Space, options: RunOptions) -> tuple[Space, list[str]]:
    """Return the space with the options applied, and a phrase for each way in which they changed it.

    Names are put into the order of the space, so that the same names in another order give the same sweep. Methods get their own
    search where a row asks for it. Raises ValueError for names that the space does not have and for values out of range.
    """
    space = with_own_search(space)
    changes: dict[str, Any] = {}
    told: list[str] = []
    if options.models is not None and set(options.models) != set(space.models):
        changes["models"] = tuple(_in_order(options.models, space.models))
        told.append(f"--models {','.join(changes['models'])} instead of {','.join(space.models)}")
    if options.tasks is not None:
        tasks: dict[str, str | FileTask] = {task_name(task): task for task in space.tasks}
        _check_known("task", options.tasks, tasks)
        changes["tasks"] = tuple(task for name, task in tasks.items() if name in options.tasks)
        kept_tasks = [task_name(task) for task in changes["tasks"]]
        changes["recipe"] = space.recipe.of_tasks(kept_tasks)
        told += _fewer("--tasks", kept_tasks, tasks)
    if options.methods is not None:
        rows = {entry.label: entry for entry in space.methods}
        added = _added(options.methods, space)
        _check_known("method", [name for name in options.methods if name not in added], rows)
        kept = [entry for label, entry in rows.items() if label in options.methods]
        changes["methods"] = (*kept, *added.values())
        told += _fewer("--methods", [entry.label for entry in kept], rows)
        told += [f"--methods added {name}, which searches what its method recommends" for name in added]
    space = with_own_search(replace(space, **changes))
    flags = [(flag, path, getattr(options, name)) for flag, name, path in FLAGS]
    given = {path: (f"{flag} {value}", str(value)) for flag, path, value in flags if value is not None}
    for text in options.settings:
        path, _, value = text.partition("=")
        if path in given:
            raise ValueError(f"--set {text}: {path} is set twice, also by {given[path][0]}")
        given[path] = (f"--set {text}", value)
    space, changed = set_fields(space, given)
    check_unused(space.recipe, {path: option for path, (option, _) in given.items()})
    return space, told + changed


def with_own_search(space: Space) -> Space:
    """Return the space with each method's own search dimensions added where a row asks for them (`own_search`).

    Raises ValueError for a method that does not exist.
    """
    for entry in space.methods:
        if entry.name not in (*METHODS, PEFT):
            raise ValueError(f"method {entry.name!r} is not known: {nearest(entry.name, METHODS)}")
    filled = [
        replace(e, settings={**method_type(e.name).search, **e.settings}, own_search=False) if e.own_search else e
        for e in space.methods
    ]
    return replace(space, methods=tuple(filled))


def _added(names: Sequence[str], space: Space) -> dict[str, MethodEntry]:
    """Return a row with its own search for each name that is a known method of which the space has no row."""
    present = {entry.label for entry in space.methods} | {entry.name for entry in space.methods}
    return {name: own_search(name) for name in METHODS if name in names and name not in present}


def _check_known(kind: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            others = METHODS if kind == "method" and name not in METHODS else {}
            raise ValueError(f"{kind} {name!r} is not in this space: {nearest(name, {**known, **others})}")


def _in_order(names: Sequence[str], order: Iterable[str]) -> list[str]:
    known = [name for name in order if name in names]
    return known + [name for name in names if name not in known]


def _fewer(flag: str, names: Sequence[str], known: Mapping[str, object]) -> list[str]:
    if len(names) == len(known):
        return []
    return [f"{flag} {','.join(names)}, {len(names)} of {len(known)}" if names else f"{flag}: none of the space's"]
