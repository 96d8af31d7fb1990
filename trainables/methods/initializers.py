"""Initializers of parameters. They are values, so that declarations can be compared and hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

InitKind = Literal[
    "constant",
    "normal",
    "truncated",
    "uniform",
    "relu_uniform",
    "linear_uniform",
    "glorot",
    "identity",
    "frozen",
    "words",
]


@dataclass(frozen=True)
class Init:
    """A kind of initializer with its numbers; see the functions below."""

    kind: InitKind
    a: float = 0.0
    b: float = 0.0


def constant(value: float) -> Init:
    return Init("constant", value)


def normal(std: float) -> Init:
    return Init("normal", std)


def truncated(std: float) -> Init:
    """Normal, truncated at two standard deviations."""
    return Init("truncated", std)


def uniform(low: float, high: float) -> Init:
    return Init("uniform", low, high)


ZEROS, ONES = constant(0.0), constant(1.0)
IDENTITY = Init("identity")
# Uniform in +- sqrt(6 / rows): Kaiming's for a ReLU that follows.
RELU_UNIFORM = Init("relu_uniform")
# Uniform in +- 1 / sqrt(rows): Kaiming's with a = sqrt(5), as torch's Linear and LoRA's A.
LINEAR_UNIFORM = Init("linear_uniform")
# Uniform in +- sqrt(6 / (rows + columns)) of the last two dimensions.
GLOROT = Init("glorot")
# What `Method.from_frozen` computes from the frozen weight at the parameter's site.
FROZEN = Init("frozen")
# Vectors of different words, drawn from the frozen word embeddings.
WORDS = Init("words")
