"""Scores of each cell's finals after their method was removed from a span of layers, collected for the table and the figure.

Legend: S finals, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reports.data.store import StoredSweep
from reports.data.trial_table import by_cell
from search_spaces.language import Cell
from search_spaces.records import Ablation


@dataclass(frozen=True, kw_only=True, eq=False)
class AblationScores:
    """Scores of one cell's finals on the validation split, percent points.

    full: [S], nothing removed.
    ablated: [S, L, L] by first and last removed layer, NaN where last lies before first.
    seconds: [S], the time that each final's ablation took.
    """

    cell: Cell
    full: np.ndarray
    ablated: np.ndarray
    seconds: np.ndarray

    @property
    def changes(self) -> np.ndarray:
        """Score minus the score with nothing removed, [S, L, L]."""
        return self.ablated - self.full[:, None, None]

    @property
    def mean(self) -> np.ndarray:
        """Mean change [L, L]."""
        mean: np.ndarray = self.changes.mean(axis=0)
        return mean

    @property
    def layers(self) -> int:
        return self.ablated.shape[-1]


def collect_ablations(sweep: StoredSweep) -> Mapping[Cell, AblationScores | None]:
    """Every cell whose method was to be ablated, in table order; None while no final has an ablation."""
    requested = {label for label, facts in sweep.manifest.methods.items() if facts.ablated}
    cells = by_cell(sweep.manifest, sweep.trials).items()
    return {
        cell: _scores(cell, [sweep.ablations[run] for run in rows["run_id"] if run in sweep.ablations])
        for cell, rows in cells
        if cell.method in requested
    }


def _scores(cell: Cell, found: list[Ablation]) -> AblationScores | None:
    # A store may hold finals of encoders with other numbers of layers under one name.
    found = [one for one in found if len(one.spans) == len(found[0].spans)]
    if not found:
        return None
    return AblationScores(
        cell=cell,
        full=np.array([one.whole for one in found]),
        ablated=np.stack([_square(one) for one in found]),
        seconds=np.array([one.seconds for one in found]),
    )


def _square(ablation: Ablation) -> np.ndarray:
    """[L, L] by first and last layer."""
    layers = len(ablation.spans)
    square = np.full((layers, layers), np.nan)
    for first, scores in enumerate(ablation.spans):
        square[first, first:] = scores
    return square
