"""Adapts a space to other encoders (--models): leaves out the settings and rows that are impossible with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from search_spaces.language import TRAINING, Choice, MethodEntry, Scalar, Space
from trainables.methods.spec import Shape
from trainables.training.parameter_counts import build


def fit(space: Space, own: Iterable[Shape], given: Collection[Shape], droppable: bool) -> tuple[Space, list[str]]:
    """Leave out what the space's `own` encoders allow and one of the `given` ones does not; return the space and sentences on it.

    This removes listed values of a dimension and, if `droppable` (rows named on the command line are not), whole rows. If nothing
    would remain, or the settings are impossible with an own encoder too, they stay, and the later checks raise ValueError.
    """
    own = tuple(own)
    if not own or not given:
        return space, []
    entries = [replace(e, settings={k: _fitting(e, k, own, given) for k in e.settings}) for e in space.methods]
    unfit = [e for e in entries if droppable and _own_only(e.name, _fixed(e), own, given)]
    if len(unfit) == len(entries):
        return space, []
    told = (
        [f"left out {', '.join(entry.label for entry in unfit)}: their settings are not possible with these models"]
        if unfit
        else []
    )
    kept = [(before, after) for before, after in zip(space.methods, entries, strict=True) if after not in unfit]
    for before, after in kept:
        changed = {k: v for k, v in after.settings.items() if v != before.settings[k] and isinstance(v, Choice)}
        told += [f"{after.label} with {k} in {', '.join(map(str, v.values))} only" for k, v in changed.items()]
    return replace(space, methods=tuple(after for _, after in kept)), told


def _own_only(name: str, settings: Mapping[str, Scalar], own: Iterable[Shape], given: Iterable[Shape]) -> bool:
    """Return whether all of the space's own encoders allow these settings, and at least one of the given ones does not."""
    return all(_allowed(name, settings, shape) for shape in own) and not all(
        _allowed(name, settings, shape) for shape in given
    )


def _allowed(name: str, settings: Mapping[str, Scalar], shape: Shape) -> bool:
    try:
        build(name, settings, shape)
    except ValueError:
        return False
    return True


def _fitting(entry: MethodEntry, key: str, own: Collection[Shape], given: Collection[Shape]) -> Any:
    """Return a setting of a row; if it is a choice, without the values that a given encoder does not allow.

    If no value would remain, all are kept.
    """
    value = entry.settings[key]
    if key in TRAINING or not isinstance(value, Choice):
        return value
    fixed = {name: each for name, each in _fixed(entry).items() if name != key}
    kept = tuple(each for each in value.values if not _own_only(entry.name, {**fixed, key: each}, own, given))
    return Choice(kept) if kept and kept != value.values else value


def _fixed(entry: MethodEntry) -> dict[str, Scalar]:
    return {key: value for key, value in entry.fixed.items() if key not in TRAINING}
