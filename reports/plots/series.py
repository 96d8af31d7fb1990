"""Rows of a space that belong together in figures: one method, differing in one numeric setting only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from reports.data.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Series:
    """Rows of a space with the same method that differ in one numeric setting only.

    `labels` and `values` (of the setting) are in ascending order of the values. `title` names the method and its other settings.
    """

    title: str
    family: str
    setting: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


def series(manifest: Manifest) -> list[Series]:
    """Every series of the space, in the order in which the first row of each stands in the space."""
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for label, facts in manifest.methods.items():
        for setting, value in facts.fixed.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = tuple(sorted((k, v) for k, v in facts.fixed.items() if k != setting))
                groups[facts.name, setting, repr(others)].append(label)
    return [
        _series(manifest, str(key[1]), labels) for key, labels in groups.items() if _differ(manifest, key[1], labels)
    ]


def _differ(manifest: Manifest, setting: object, labels: list[str]) -> bool:
    """Whether these rows have more than one value of the setting."""
    return len({manifest.methods[label].fixed[str(setting)] for label in labels}) > 1


def _series(manifest: Manifest, setting: str, labels: list[str]) -> Series:
    ranked = sorted(labels, key=lambda label: float(manifest.methods[label].fixed[setting]))
    facts = manifest.methods[ranked[0]]
    others = {one: value for one, value in facts.fixed.items() if one != setting and _varies(manifest, facts.name, one)}
    other_settings = ", ".join(f"{one} {value}" for one, value in others.items())
    return Series(
        title=facts.kind + (f" ({other_settings})" if other_settings else ""),
        family=facts.family,
        setting=setting,
        labels=tuple(ranked),
        values=tuple(float(manifest.methods[label].fixed[setting]) for label in ranked),
    )


def _varies(manifest: Manifest, name: str, setting: str) -> bool:
    """Whether the rows of the method `name` have more than one value of the setting."""
    return len({facts.fixed.get(setting) for facts in manifest.methods.values() if facts.name == name}) > 1
