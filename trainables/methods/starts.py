"""How a parameter is drawn before a trial's first step. Values, so that declarations compare and hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
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
class Start:
    """`kind` and its numbers; see the functions below."""

    kind: Kind
    a: float = 0.0
    b: float = 0.0


def constant(value: float) -> Start:
    return Start("constant", value)


def normal(std: float) -> Start:
    return Start("normal", std)


def truncated(std: float) -> Start:
    """Normal, cut at two deviations."""
    return Start("truncated", std)


def uniform(low: float, high: float) -> Start:
    return Start("uniform", low, high)


ZEROS, ONES = constant(0.0), constant(1.0)
IDENTITY = Start("identity")
# Uniform in +- sqrt(6 / rows): Kaiming's for a ReLU that follows.
RELU_UNIFORM = Start("relu_uniform")
# Uniform in +- 1 / sqrt(rows): Kaiming's with a = sqrt(5), as torch's Linear and LoRA's A start.
LINEAR_UNIFORM = Start("linear_uniform")
# Uniform in +- sqrt(6 / (rows + columns)) of the last two dimensions.
GLOROT = Start("glorot")
# What `Method.from_frozen` computes from the frozen weight at the parameter's site.
FROZEN = Start("frozen")
# Word vectors of the frozen embeddings, drawn from the whole vocabulary.
WORDS = Start("words")
