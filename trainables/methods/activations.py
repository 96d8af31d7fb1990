"""Activation functions that torch tensors do not have as methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def gelu(z: Tensor) -> Tensor:
    """z Phi(z) with the exact normal distribution function Phi, not its tanh approximation."""
    return z * ((z * 0.5**0.5).erf() + 1) * 0.5


def swish(z: Tensor) -> Tensor:
    return z * z.sigmoid()
