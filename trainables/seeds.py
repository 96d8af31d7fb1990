"""Derives all random numbers of a trial from its seed by hashing. There is no global generator and no stored state.

Each random stream has a name, such as ("dropout", step), that is hashed together with the seed. So the random numbers of a
step depend neither on earlier interruptions of the trial nor on the trials that are trained together with it.
"""

import hashlib

import numpy as np


def derive(seed: int, *words: str | int) -> int:
    """Returns a seed in [0, 2**63) for the random stream named by `words`: from the SHA-256 hash of `seed` and `words`."""
    text = "/".join(map(str, (seed, *words)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def permutation(number: int, seed: int, *words: str | int) -> np.ndarray:
    """Returns a random permutation of 0 to number - 1, int64 [number], from the random stream named by `words`."""
    return np.random.default_rng(derive(seed, *words)).permutation(number)
