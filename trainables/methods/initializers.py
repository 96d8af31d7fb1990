"""Initializers of parameters. They are plain values instead of functions, so that declarations can be compared and hashed."""

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
    "paired_uniform",
]


@dataclass(frozen=True)
class Init:
    """One initializer: its kind and up to two numbers, `a` and `b`. The functions and constants below explain them."""

    kind: InitKind
    a: float = 0.0
    b: float = 0.0


def constant(value: float) -> Init:
    return Init("constant", value)


def normal(std: float) -> Init:
    return Init("normal", std)


def truncated(std: float) -> Init:
    """Normal with mean 0 and standard deviation `std`, truncated at two standard deviations."""
    return Init("truncated", std)


def uniform(low: float, high: float) -> Init:
    return Init("uniform", low, high)


ZEROS, ONES = constant(0.0), constant(1.0)
IDENTITY = Init("identity")
# Uniform in +- sqrt(6 / rows): Kaiming initialisation for a map that a ReLU follows.
RELU_UNIFORM = Init("relu_uniform")
# Uniform in +- 1 / sqrt(rows): Kaiming initialisation with a = sqrt(5), as in torch's Linear and for LoRA's A.
LINEAR_UNIFORM = Init("linear_uniform")
# Uniform in +- sqrt(6 / (rows + columns)), with rows and columns the last two dimensions.
GLOROT = Init("glorot")
# Uniform in +- sqrt(2 / columns), columns 2i and 2i + 1 being equal: Kaiming initialisation with a = sqrt(5) of one of each pair.
PAIRED_UNIFORM = Init("paired_uniform")
# Taken from the pretrained model: for LayerNorms and backbone weights the pretrained tensor itself, at a site the result of
# `Method.from_frozen` for the frozen weight there.
FROZEN = Init("frozen")
# The embeddings of randomly drawn, different words of the vocabulary.
WORDS = Init("words")
