"""Compacter: adapters whose matrices are sums of Kronecker products (Karimi Mahabadi et al. 2021, NeurIPS).

    W = sum over i = 1..n of A_i (x) (s_i t_i),    A_i [n, n] shared by all layers, s_i [rows / n, 1], t_i [1, columns / n]
    A(h) = h + f(h W_down + b_down) W_up + b_up,   f = GELU

Compacter has an adapter at both places of the Houlsby adapter, Compacter++ only after the feed-forward sub-layer. s and t start
Glorot-uniform, the A_i from N(0, 1e-4) and biases at zero, so that training starts at the frozen model up to rounding. LayerNorms
stay frozen, as in the adapters library (the authors' configuration trains them).
The authors' code and the adapters library differ in two points. GELU is exact here, as in the library (the authors use the tanh
approximation). Compacter++ is placed as in the authors' code, at Houlsby's place (the library uses Pfeiffer's).
Trap: it needs about ten times the learning rate of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.activations import gelu
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import GLOROT, normal
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Compacter(Method):
    """`r`: width of the bottleneck; `n`: number of terms of a sum, must divide r and the backbone's width."""

    title: ClassVar[str] = "Compacter"
    paper: ClassVar[str] = "Karimi Mahabadi et al. 2021"
    family: ClassVar[MethodFamily] = "adapter"
    sites: ClassVar[tuple[Site, ...]] = ("attention.output", "ffn.output")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(5e-4, 1e-3, 3e-3, 1e-2), "r": choice(24, 48, 96)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("up_left", "up_bias")
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}
    example_lr: ClassVar[float] = 0.01

    r: int = 24
    n: int = 4

    def check(self, shape: Shape | None) -> None:
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        require_int("n", self.n, 1, self.r, "the bottleneck's width")
        for name, width in (("r", self.r), ("the backbone's width", shape.width if shape else self.n)):
            if width % self.n:
                raise ValueError(f"n = {self.n}: must divide {name} = {width}")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        d, r, n = shape.width, self.r, self.n
        return {
            "down_left": Parameter(shape=(n, d // n, 1), init=GLOROT),
            "down_right": Parameter(shape=(n, 1, r // n), init=GLOROT),
            "down_bias": Parameter(shape=(r,)),
            "up_left": Parameter(shape=(n, r // n, 1), init=GLOROT),
            "up_right": Parameter(shape=(n, 1, d // n), init=GLOROT),
            "up_bias": Parameter(shape=(d,)),
        }

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        return {"rule": Parameter(shape=(self.n, self.n, self.n), init=normal(1e-4))}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        down, up = kronecker_sum(p.rule, p.down_left @ p.down_right), kronecker_sum(p.rule, p.up_left @ p.up_right)
        return h + gelu(h @ down + p.down_bias) @ up + p.up_bias


@dataclass(frozen=True, kw_only=True)
class CompacterPlusPlus(Compacter):
    title: ClassVar[str] = "Compacter++"
    sites: ClassVar[tuple[Site, ...]] = ("ffn.output",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "n": 2}


def kronecker_sum(a: Tensor, b: Tensor) -> Tensor:
    """Returns the sum over i of the Kronecker products A_i (x) B_i, [K, n rows, n columns].

    `a` [K, n, n, n] holds the A_i and `b` [K, n, rows, columns] the B_i; dimension 1 of both is i.
    """
    n, rows, columns = b.shape[1:]
    products = a.flatten(2).transpose(1, 2) @ b.flatten(2)
    return products.view(-1, n, n, rows, columns).transpose(2, 3).reshape(-1, n * rows, n * columns)
