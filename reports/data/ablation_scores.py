"""What each cell's finals lose when their method is removed from spans of layers: collected from the store, for table and figure.

Legend: S finals, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from reports.data.store import StoredSweep
from reports.data.trial_table import by_cell
from search_spaces.language import Cell
from search_spaces.records import Ablation


@dataclass(frozen=True, kw_only=True, eq=False)
class Worth:
    """Scores of one cell's finals on the validation split, percent points.

    `whole` [S]: nothing removed; `left` [S, L, L]: layers first to last removed, NaN where last lies before first.
    `seconds` [S]: what the ablation of each took.
    """

    cell: Cell
    whole: np.ndarray
    left: np.ndarray
    seconds: np.ndarray

    @property
    def changes(self) -> np.ndarray:
        """[S, L, L]"""
        return self.left - self.whole[:, None, None]

    @property
    def mean(self) -> np.ndarray:
        """Mean change [L, L]."""
        mean: np.ndarray = self.changes.mean(axis=0)
        return mean

    @property
    def layers(self) -> int:
        return self.left.shape[-1]


@lru_cache(maxsize=2)
def worths(sweep: StoredSweep) -> Mapping[Cell, Worth | None]:
    """Every cell of the rows for which this was asked, in table order; None while no final has it."""
    asked = {label for label, facts in sweep.manifest.methods.items() if facts.ablated}
    cells = by_cell(sweep.manifest, sweep.trials).items()
    return {
        cell: _worth(cell, [sweep.ablations[run] for run in rows["run_id"] if run in sweep.ablations])
        for cell, rows in cells
        if cell.method in asked
    }


def _worth(cell: Cell, found: list[Ablation]) -> Worth | None:
    # A foreign store may hold finals of other encoders under one name.
    found = [one for one in found if len(one.spans) == len(found[0].spans)]
    if not found:
        return None
    return Worth(
        cell=cell,
        whole=np.array([one.whole for one in found]),
        left=np.stack([_square(one) for one in found]),
        seconds=np.array([one.seconds for one in found]),
    )


def _square(ablation: Ablation) -> np.ndarray:
    """[L, L] by first and last layer."""
    layers = len(ablation.spans)
    square = np.full((layers, layers), np.nan)
    for first, scores in enumerate(ablation.spans):
        square[first, first:] = scores
    return square
