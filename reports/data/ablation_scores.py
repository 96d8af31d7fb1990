"""Collects the validation scores of finals after the trained method was removed from spans of consecutive layers.

Shapes: S finals of one cell, L layers of the backbone.
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
    """Validation scores of one cell's finals with and without their method, percent points.

    full: [S], scores with the complete method.
    ablated: [S, L, L], scores by first and last layer without the method; NaN where the last is before the first.
    seconds: [S], how long the evaluation of all spans took. metric: of the scores; "" for the task's own score.
    """

    cell: Cell
    metric: str
    full: np.ndarray
    ablated: np.ndarray
    seconds: np.ndarray

    @property
    def changes(self) -> np.ndarray:
        """Changes of the score by removal, [S, L, L], percent points: `ablated` minus `full`."""
        return self.ablated - self.full[:, None, None]

    @property
    def mean(self) -> np.ndarray:
        """Mean of `changes` over finals, [L, L], percent points."""
        mean: np.ndarray = self.changes.mean(axis=0)
        return mean

    @property
    def layers(self) -> int:
        """Number of layers, L."""
        return self.ablated.shape[-1]


def collect_ablations(sweep: StoredSweep) -> Mapping[Cell, AblationScores | None]:
    """Return the scores of every cell whose method was to be removed from layers, in table order.

    A cell is None while none of its finals has stored such scores.
    """
    requested = {label for label, facts in sweep.manifest.methods.items() if facts.ablated}
    cells = by_cell(sweep.manifest, sweep.trials).items()
    return {
        cell: _scores(cell, [sweep.ablations[run] for run in rows["run_id"] if run in sweep.ablations])
        for cell, rows in cells
        if cell.method in requested
    }


def _scores(cell: Cell, found: list[Ablation]) -> AblationScores | None:
    # Under one model name, a store may contain finals of backbones with different numbers of layers.
    # Finals that an older version of this program scored may have another metric.
    found = [one for one in found if (len(one.spans), one.metric) == (len(found[0].spans), found[0].metric)]
    if not found:
        return None
    return AblationScores(
        cell=cell,
        metric=found[0].metric,
        full=np.array([one.whole for one in found]),
        ablated=np.stack([_square(one) for one in found]),
        seconds=np.array([one.seconds for one in found]),
    )


def _square(ablation: Ablation) -> np.ndarray:
    """Return the scores of all spans as a matrix [L, L] by first and last removed layer, NaN where last is before first."""
    layers = len(ablation.spans)
    square = np.full((layers, layers), np.nan)
    for first, scores in enumerate(ablation.spans):
        square[first, first:] = scores
    return square
