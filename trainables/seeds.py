"""Derives all random numbers of a trial from its seed by hashing. There is no global generator and no stored state.

Each random stream has a name ("dropout", step). So the numbers of a step depend neither on interruptions of the trial before
it nor on the trials that it is stacked with.
"""

import hashlib

import numpy as np


def derive(seed: int, *words: str | int) -> int:
    """A seed in [0, 2**63) for the stream that these words name."""
    text = "/".join(map(str, (seed, *words)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def permutation(number: int, seed: int, *words: str | int) -> np.ndarray:
    """A random order of 0..number-1, int64 [number]."""
    return np.random.default_rng(derive(seed, *words)).permutation(number)
