"""Colour and marker of each method, and the order of methods and of their families in every figure and table.

Families that are not listed here come last and share the style `OTHER`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.data.manifest import Manifest
from reports.plots.series import series
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell


@dataclass(frozen=True, kw_only=True)
class FamilyStyle:
    """`colour`: on a white page. `dark`: on a dark page. `marker`: Matplotlib's code; it tells families apart without colour."""

    colour: str
    dark: str
    marker: str


FAMILIES: dict[str, FamilyStyle] = {
    "full": FamilyStyle(colour="#111111", dark="#f5f5f5", marker="s"),
    "freezing": FamilyStyle(colour="#8c510a", dark="#d8a25e", marker="D"),
    "adapter": FamilyStyle(colour="#0072b2", dark="#5ab4f0", marker="o"),
    "low rank": FamilyStyle(colour="#c04f00", dark="#ff9a52", marker="^"),
    "orthogonal": FamilyStyle(colour="#a3333d", dark="#f58a93", marker="h"),
    "scaling and bias": FamilyStyle(colour="#00805c", dark="#3fcf9f", marker="v"),
    "prompt": FamilyStyle(colour="#b5409a", dark="#ee86d3", marker="P"),
    "mask": FamilyStyle(colour="#8a7400", dark="#d9c23c", marker="X"),
    "combination": FamilyStyle(colour="#4b3a8f", dark="#a899f5", marker="*"),
}
OTHER = FamilyStyle(colour="#6b7075", dark="#a3a8ad", marker="p")

STYLES = (*FAMILIES.values(), OTHER)
_MORE_MARKERS = "<>hdH8p*sDPX^vo" * 3  # for methods of a family whose own marker is taken


def method_styles(manifest: Manifest) -> dict[str, FamilyStyle]:
    """The style of each method row, by its label; rows of one series (`reports.plots.series`) share one."""
    first = {label: one.labels[0] for one in reversed(series(manifest)) for label in one.labels}
    units = list(dict.fromkeys(first.get(label, label) for label in manifest.methods))
    styles = dict(zip(units, distinct([family_style(manifest.methods[unit].family) for unit in units]), strict=True))
    return {label: styles[first.get(label, label)] for label in manifest.methods}


def distinct(wanted: Sequence[FamilyStyle]) -> list[FamilyStyle]:
    """As many styles that all differ, each the wanted one for the first that wants it.

    Up to `len(STYLES)` styles differ in colour and in marker. With more, those who want the same style share its colour and
    differ in marker.
    """
    left = [style for style in STYLES if style not in wanted] if len(wanted) <= len(STYLES) else []
    found: list[FamilyStyle] = []
    for style in wanted:
        if style in found and left:
            style = left.pop(0)
        elif style in found:
            style = replace(style, marker=_MORE_MARKERS[sum(one.colour == style.colour for one in found) - 1])
        found.append(style)
    return found


def family_style(family: str) -> FamilyStyle:
    """The style of a family of methods; `OTHER` if it is not listed."""
    return FAMILIES.get(family, OTHER)


def families_in(manifest: Manifest) -> list[str]:
    """The families of this sweep's methods, in the order of `FAMILIES`; then those not listed there, alphabetically."""
    found = {facts.family for facts in manifest.methods.values()}
    return [name for name in FAMILIES if name in found] + sorted(found - set(FAMILIES))


def methods_by_family(sweep: AnalyzedSweep, model: str) -> list[str]:
    """Labels of all methods, sorted by family and then by the number of parameters trained on this model, unknown ones last."""
    manifest = sweep.manifest
    families = families_in(manifest)

    def rank(label: str) -> tuple[int, float]:
        cells = [sweep.results[Cell(model=model, task=task, method=label)] for task in manifest.tasks]
        sizes = [result.counts.trained for result in cells if result.counts]
        return families.index(manifest.methods[label].family), min(sizes, default=math.inf)

    return sorted(manifest.methods, key=rank)


def ordered_cells(sweep: AnalyzedSweep) -> list[Cell]:
    """All cells by model and task, and within them in the order of `methods_by_family`."""
    return [
        Cell(model=model, task=task, method=label)
        for model in sweep.manifest.models
        for task in sweep.manifest.tasks
        for label in methods_by_family(sweep, model)
    ]
