"""Non-linearities that tensors have no method for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def gelu(z: Tensor) -> Tensor:
    """z Phi(z), exact."""
    return z * ((z * 0.5**0.5).erf() + 1) * 0.5


def swish(z: Tensor) -> Tensor:
    return z * z.sigmoid()
