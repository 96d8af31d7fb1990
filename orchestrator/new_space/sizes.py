"""Chooses how much of a user's data a first sweep trains on, so that it ends in about an hour on this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from orchestrator.planning.speed_guess import token_seconds
from trainables.methods.spec import Shape
from trainables.tasks.splits import SHARE

# One method of each kind, from all weights to the head alone; on a GPU a few more.
METHODS = ("full", "lora", "adapter", "bitfit", "linear_probe")
GPU_METHODS = (*METHODS, "dora", "ia3", "prefix")
TRIALS, FINAL_SEEDS = 4, 3
# Hours that the sweep may take if no trial is stopped early.
MOST_HOURS = 1.0
# Numbers of training examples that are tried, the largest first, below all of them.
EXAMPLES = (20_000, 10_000, 5_000, 3_000, 2_000, 1_000, 600, 400)
# Training steps after which new modules have learnt most, and fewer, with which they have learnt something. Epochs follow them.
STEPS = (300, 150)
MIN_EPOCHS, MAX_EPOCHS = 3, 20
# The final scores are measured on at most this many examples on a CPU.
MOST_TEST = 2_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a sweep. train_examples, test_examples: 0 for all. hours: a guess of the most hours that it takes."""

    train_examples: int
    test_examples: int
    epochs: int
    batch_size: int
    methods: tuple[str, ...]
    hours: float


def choose_size(train: int, test: int, mean_tokens: float, shape: Shape, gpus: int, cores: int) -> Size:
    """Return the size of a sweep on `train` training and `test` test examples with so many tokens each."""
    methods = GPU_METHODS if gpus else METHODS
    seconds = mean_tokens * token_seconds(shape, gpus > 0) / (gpus or cores)
    numbers = (train, *(each for each in EXAMPLES if each < train))
    for steps, examples in product(STEPS, numbers):
        batch = 16 if examples >= 200 else 8
        epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, math.ceil(steps * batch / examples)))
        hours = len(methods) * (TRIALS + FINAL_SEEDS) * epochs * examples * (1 + SHARE / 3) * seconds / 3600
        found = Size(
            train_examples=0 if examples == train else examples,
            test_examples=0 if gpus or test <= MOST_TEST else MOST_TEST,
            epochs=epochs,
            batch_size=batch,
            methods=methods,
            hours=hours,
        )
        if hours <= MOST_HOURS:
            break
    return found
