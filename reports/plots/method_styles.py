"""The families of methods: their order in every figure, and how each is drawn, in colour and in grey.

A family that is not listed here comes last and is drawn as the listed ones are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.data.manifest import Manifest
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell


@dataclass(frozen=True, kw_only=True)
class Look:
    """`colour` on white, `dark` the same family's colour on a dark page; the marker tells families apart in grey."""

    colour: str
    dark: str
    marker: str


FAMILIES: dict[str, Look] = {
    "full": Look(colour="#111111", dark="#f5f5f5", marker="s"),
    "freezing": Look(colour="#8c510a", dark="#d8a25e", marker="D"),
    "adapter": Look(colour="#0072b2", dark="#5ab4f0", marker="o"),
    "low rank": Look(colour="#c04f00", dark="#ff9a52", marker="^"),
    "scaling and bias": Look(colour="#00805c", dark="#3fcf9f", marker="v"),
    "prompt": Look(colour="#b5409a", dark="#ee86d3", marker="P"),
    "mask": Look(colour="#8a7400", dark="#d9c23c", marker="X"),
    "combination": Look(colour="#4b3a8f", dark="#a899f5", marker="*"),
}
OTHER = Look(colour="#6b7075", dark="#a3a8ad", marker="p")


def look(family: str) -> Look:
    return FAMILIES.get(family, OTHER)


def present(manifest: Manifest) -> list[str]:
    """Families of this sweep in their order; unlisted ones after the others."""
    found = {facts.family for facts in manifest.methods.values()}
    return [name for name in FAMILIES if name in found] + sorted(found - set(FAMILIES))


def ordered(sweep: AnalyzedSweep, model: str) -> list[str]:
    """Labels of the methods: by family, then by trained parameters on this model, unknown sizes last."""
    manifest = sweep.manifest
    families = present(manifest)

    def rank(label: str) -> tuple[int, float]:
        cells = [sweep.results[Cell(model=model, task=task, method=label)] for task in manifest.tasks]
        sizes = [result.counts.trained for result in cells if result.counts]
        return families.index(manifest.methods[label].family), min(sizes, default=math.inf)

    return sorted(manifest.methods, key=rank)
