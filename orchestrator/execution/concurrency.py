"""The number of trials that share a GPU when none is given: as many as fill its step with tokens.

A large GPU's matrix products run at their best speed from 8 to 16 thousand tokens; more trials only make each other slower.
The device worker measures memory and refuses trials for which it has none (`trainables/worker/memory.py`). On the CPU one trial
of a real encoder fills a core.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from search_spaces.language import Choice, Dimension, Scalar, Space

TOKENS = 12_000
MOST = 64


def trials_per_device(space: Space, lengths: Iterable[float], gpus: int) -> int:
    """`lengths`: tokens per example, the mean of each task. The answer looks at them and at the space's mean batch size."""
    if not gpus:
        return 1
    batches = [_mean(space.values_of(entry)["batch_size"]) for entry in space.methods]
    return max(1, min(MOST, int(TOKENS / (fmean(lengths) * fmean(batches)))))


def _mean(value: Scalar | Dimension) -> float:
    """Of the values that a dimension can take."""
    if isinstance(value, Choice):
        return fmean(float(v) for v in value.values)
    return float(value) if isinstance(value, Scalar) else (value.low + value.high) / 2
