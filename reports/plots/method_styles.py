"""Colour and marker of each family of methods, and the order of families in every figure.

Families that are not listed here come last and share the style `OTHER`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.data.manifest import Manifest
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
    "scaling and bias": FamilyStyle(colour="#00805c", dark="#3fcf9f", marker="v"),
    "prompt": FamilyStyle(colour="#b5409a", dark="#ee86d3", marker="P"),
    "mask": FamilyStyle(colour="#8a7400", dark="#d9c23c", marker="X"),
    "combination": FamilyStyle(colour="#4b3a8f", dark="#a899f5", marker="*"),
}
OTHER = FamilyStyle(colour="#6b7075", dark="#a3a8ad", marker="p")


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
