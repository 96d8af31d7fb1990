"""One seed per trial, and everything random derived from it by hashing: no global generator, no stored state.

A stream is named by words ("dropout", step), so the draw of a step is the same whether or not the trial was interrupted
before it, and whichever trials it is stacked with.
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
