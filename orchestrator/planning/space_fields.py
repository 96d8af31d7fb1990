"""Sets fields of a space by their paths, as `--set` does: `recipe.epochs`, `search.lr`, `methods.adapter.r`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from search_spaces.language import LIMITS, TRAINING, Dimension, FileTask, MethodEntry, Scalar, Space, task_name
from search_spaces.loading import nearest
from search_spaces.peft_rows import PEFT
from search_spaces.values import parse_field, parse_value, text_of
from trainables.methods.lookup import method_type


@dataclass(frozen=True, kw_only=True)
class Change:
    """A space after one field was set, the texts of the field's value before and after, and a remark on it."""

    space: Space
    before: str
    after: str
    remark: str = ""


def set_fields(space: Space, given: Mapping[str, tuple[str, str]]) -> tuple[Space, list[str]]:
    """Set fields of the space; return it and a phrase for each one that had another value.

    `given`: by path, the option that sets the field, as messages call it, and the value as a text. Raises ValueError for a field
    that the space does not have, a value that it cannot have, and a value that no row would use.
    """
    told: dict[str, str] = {}
    for path in sorted(given, key=lambda path: _ORDER.get(path.partition(".")[0], 0)):
        option, text = given[path]
        part, _, name = path.partition(".")
        try:
            change = _SETTERS.get(part, _set_unknown)(space, part, name, text)
        except ValueError as error:
            # The option already says which field it is.
            reason = re.sub(rf"^{re.escape(f'{part}: {name} = ')}.*?: (?=must be)", "", str(error))
            raise ValueError(f"{option}: {reason}") from None
        if change.space != space:
            shown = option if not option.startswith("--set") else f"--set {path}={change.after}"
            told[path] = f"{shown} instead of {change.before}{change.remark}"
        space = change.space
    return space, [told[path] for path in given if path in told]


def _set_in_record(space: Space, part: str, name: str, text: str) -> Change:
    """Set a field of the recipe or the budget. The epochs are then no longer searched."""
    record = getattr(space, part)
    if not name:
        raise ValueError(f"{part} has several fields; set one, as in {part}.{fields(record)[0].name}=...")
    if (field := name.partition(".")[0]) in LIMITS and field != name:
        return _set_limit(space, field, name.removeprefix(f"{field}."), text)
    value = parse_field(type(record), name, text)
    changes: dict[str, Any] = {part: replace(record, **{name: value})}
    if (part, name) == ("recipe", "epochs") and value != record.epochs:
        methods = tuple(replace(e, settings=_without("epochs", e.settings)) for e in space.methods)
        changes |= {"search": _without("epochs", space.search), "methods": methods}
    changed = replace(space, **changes)
    return Change(space=changed, before=text_of(getattr(record, name)), after=text_of(value))


def _set_limit(space: Space, field: str, task: str, text: str) -> Change:
    """Set how many examples one task has at most."""
    tasks = [task_name(each) for each in space.tasks]
    if task not in tasks:
        raise ValueError(_no_item("task", task, "", dict.fromkeys(tasks)))
    recipe: Any = space.recipe
    before = {each: recipe.limit(field, each) for each in tasks}
    value = parse_value(text)
    changed = replace(space, recipe=replace(recipe, **{field: {**before, task: value}}))
    return Change(space=changed, before=text_of(before[task]), after=text_of(value))


def _set_on_space(space: Space, part: str, name: str, text: str) -> Change:
    if name:
        raise ValueError(f"{part} has no fields: {part}=... sets it")
    value = parse_field(Space, part, text)
    return Change(
        space=replace(space, **{part: value}), before=text_of(getattr(space, part)) or "none", after=text_of(value)
    )


def _set_in_search(space: Space, part: str, name: str, text: str) -> Change:
    """Set a hyperparameter of all rows that have no value of their own for it."""
    known = {*TRAINING, *(key for entry in space.methods for key in _defaults(entry))}
    if name not in known:
        raise ValueError(f"no method of the space has {name!r}: {nearest(name, known)}")
    own = [entry.label for entry in space.methods if name in entry.settings]
    if len(own) == len(space.methods):
        raise ValueError(f"every method has its own {name}; set it with methods.NAME.{name}, one of {', '.join(own)}")
    value = parse_value(text)
    remark = f" (not for {', '.join(own)}, with their own)" if own else ""
    changed = replace(space, search={**space.search, name: value})
    return Change(space=changed, before=text_of(space.search.get(name)), after=text_of(value), remark=remark)


def _set_in_method(space: Space, part: str, name: str, text: str) -> Change:
    """Set a setting of one row, or whether it is ablated."""
    label, _, key = name.rpartition(".")
    rows = {entry.label: entry for entry in space.methods}
    if label not in rows:
        raise ValueError(_no_item("method", label, key, rows))
    entry = rows[label]
    value = parse_value(text)
    if key == "ablated":
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        changed, before = replace(entry, ablated=value), text_of(entry.ablated)
    else:
        defaults = {"lr": "none", "batch_size": "none", "epochs": space.recipe.epochs, **_defaults(entry)}
        if key not in defaults and not (
            entry.name == PEFT and key.isidentifier()
        ):  # peft's fields are checked with the plan
            raise ValueError(f"{key!r} is no setting of {entry.name!r}: {nearest(key, {*defaults, 'ablated'})}")
        changed = replace(entry, settings={**entry.settings, key: value})
        before = text_of({**defaults, **space.values_of(entry)}.get(key, "peft's default"))
    methods = tuple(changed if each is entry else each for each in space.methods)
    return Change(space=replace(space, methods=methods), before=before, after=text_of(value))


def _set_in_task(space: Space, part: str, name: str, text: str) -> Change:
    """Set a field of a task in the user's own files."""
    label, _, key = name.rpartition(".")
    tasks = {task_name(task): task for task in space.tasks}
    if label not in tasks:
        raise ValueError(_no_item("task", label, key, tasks))
    task = tasks[label]
    if not isinstance(task, FileTask):
        raise ValueError(f"{label} is a built-in task, whose fields cannot be set; only those of a FileTask can")
    value = parse_field(FileTask, key, text)
    changed = tuple(replace(task, **{key: value}) if each is task else each for each in space.tasks)
    return Change(
        space=replace(space, tasks=changed), before=text_of(getattr(task, key)) or "none", after=text_of(value)
    )


def _set_unknown(space: Space, part: str, name: str, text: str) -> Change:
    if part == "models":
        raise ValueError("choose the models with --models")
    raise ValueError(f"a space has no {part!r}: {nearest(part, _SETTERS)}")


def _no_item(kind: str, label: str, key: str, known: Mapping[str, object]) -> str:
    if not label:
        return f"choose {kind}s with --{kind}s, or set a field of one: {kind}s.NAME.FIELD"
    return f"{kind} {label!r} is not in this space: {nearest(label, known)}"


def _defaults(entry: MethodEntry) -> Mapping[str, Scalar]:
    return method_type(entry.name)().settings()


def _without(name: str, values: Mapping[str, Scalar | Dimension]) -> dict[str, Scalar | Dimension]:
    return {key: value for key, value in values.items() if key != name}


_SETTERS: Mapping[str, Callable[[Space, str, str, str], Change]] = {
    "recipe": _set_in_record,
    "budget": _set_in_record,
    "seed": _set_on_space,
    "title": _set_on_space,
    "paper": _set_on_space,
    "tasks": _set_in_task,
    "search": _set_in_search,
    "methods": _set_in_method,
}
# The order in which fields are set: a searched number of epochs may not be larger than the recipe's, and is set after it.
_ORDER = {part: number for number, part in enumerate(_SETTERS)}
