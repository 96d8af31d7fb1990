"""Chooses the number of trials that share a GPU if the user gives none: enough for an efficient number of tokens per step.

The matrix products of a large GPU reach full speed at 8 to 16 thousand tokens; more trials would only slow each other down. Nor
do more trials share a GPU than are needed to run all startable trials at once. The device worker measures memory and refuses
trials that do not fit (`trainables/worker/memory.py`). On the CPU, one trial of an encoder of usual size uses a core fully.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

from search_spaces.language import Choice, Dimension, Scalar, Space

TOKENS = 12_000
MOST = 64


def trials_per_device(space: Space, lengths: Iterable[float], gpus: int) -> int:
    """Return the number of trials per GPU, from 1 to MOST, for at most about TOKENS tokens per step; 1 without GPUs.

    `lengths` are the mean tokens per example of each (model, task). Batch sizes are averaged over the methods of the space.
    """
    if not gpus:
        return 1
    batches = [_mean(space.values_of(entry)["batch_size"]) for entry in space.methods]
    efficient = int(TOKENS / (fmean(lengths) * fmean(batches)))
    return max(1, min(MOST, efficient, math.ceil(most_search_trials(space) / gpus)))


def most_search_trials(space: Space) -> int:
    """Return how many trials of the searches can run at once: `Space.in_flight` of each, if it has so many."""
    budget = space.budget
    return len(space.cells) * budget.searches * min(space.in_flight, budget.trials * budget.search_seeds)


def most_trials(space: Space) -> int:
    """Return how many trials can run at once; the finals of a cell all can, once its search is over."""
    return max(most_search_trials(space), len(space.cells) * space.budget.searches * space.budget.final_seeds)


def _mean(value: Scalar | Dimension) -> float:
    """Return the mean of the values that a dimension can take."""
    if isinstance(value, Choice):
        return fmean(float(v) for v in value.values)
    return float(value) if isinstance(value, Scalar) else (value.low + value.high) / 2
