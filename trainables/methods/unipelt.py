"""UniPELT (Mao et al. 2022, ACL): prefix, LoRA and adapter in every layer, each behind a gate of its own.

    g = mean over the example's tokens of sigmoid(x w + b),    w [D, 1]: one number per example, layer and part
    keys, values   [K; g P_K], [V; g P_V] (prefix.py)            x: the layer's input
    query, value   W x + g (x A) B, a gate for each; g stands in the place of LoRA's alpha / r    x: the layer's input
    adapter        h + g (f(x W_down + b_down) W_up + b_up), f = ReLU, h the FFN's output after dropout,
                   x = LN(h + residual) by the frozen LayerNorm, as a Pfeiffer adapter

The adapter's gate reads that x: the paper's text says the FFN's output, its code and the `adapters` library this.
Initial values: gates' w and the adapter's matrices at N(0, 0.02), A as torch's linear maps, B and all biases at zero; all gates
open near one half. (Their code leaves the prefix's gate to torch's default, a little wider.)
Trap: the authors average the gates over padding too, so their gates depend on the batch; here over the example's own tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM, normal
from trainables.methods.pfeiffer import STD, Pfeiffer
from trainables.methods.prefix import Prefix
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class UniPELT(Method):
    """`length` and `mlp`: of the prefix; `r`: width of the adapter; `rank`: of LoRA."""

    title: ClassVar[str] = "UniPELT"
    paper: ClassVar[str] = "Mao et al. 2022"
    family: ClassVar[MethodFamily] = "combination"
    sites: ClassVar[tuple[Site, ...]] = ("attention.query", "attention.value", "attention.prefix", "ffn.output")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 5e-4, 1e-3), "r": choice(16, 48)}
    example: ClassVar[Mapping[str, Scalar]] = {"length": 3, "r": 4, "rank": 2}

    length: int = 10
    mlp: int = 0
    r: int = 48
    rank: int = 8

    def check(self, shape: Shape | None) -> None:
        self._prefix.check(shape)
        for name in ("r", "rank"):
            require_int(name, getattr(self, name), 1, shape.width if shape else 65536, "the backbone's width")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        d = shape.width
        gate = {"gate": Parameter(shape=(d, 1), init=normal(STD), decayed=False), "gate_bias": Parameter(shape=(1,))}
        if site == "attention.prefix":
            return gate | self._prefix.parameters(shape, layer, site)
        if site == "ffn.output":
            return gate | Pfeiffer(r=self.r).parameters(shape, layer, site)
        return gate | {
            "a": Parameter(shape=(d, self.rank), init=LINEAR_UNIFORM),
            "b": Parameter(shape=(self.rank, d)),
        }

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        return self._prefix.shared(shape)

    def stored(self, shape: Shape) -> float:
        """The prefix alone is stored, not the MLP that computes it."""
        prefix = self._prefix
        return self.counts(shape)[1] - prefix.counts(shape)[1] + prefix.stored(shape)

    @property
    def prefix_tokens(self) -> int:
        return self.length

    @property
    def reads_all_tokens(self) -> bool:
        return True

    def prefix(self, p: Values, at: SiteContext) -> tuple[Tensor, Tensor]:
        key, value = self._prefix.prefix(p, at)
        gate = _gate(at.sublayer_input, p, at)
        return at.to_examples(key) * gate, at.to_examples(value) * gate

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        if at.site != "ffn.output":
            # Read twice: with one view, the gradients would add up in another order, and results move in their last bits.
            return h + at.to_tokens(_gate(at.map_input, p, at)) * (at.map_input @ p.a @ p.b)
        x = at.norm(h + at.residual)
        return h + at.to_tokens(_gate(x, p, at)) * ((x @ p.down + p.down_bias).relu() @ p.up + p.up_bias)

    @property
    def _prefix(self) -> Prefix:
        return Prefix(length=self.length, mlp=self.mlp)


def _gate(x: Tensor, p: Values, at: SiteContext) -> Tensor:
    """x [K, T, D] -> [b, 1, 1]."""
    return at.mean_of_examples((x @ p.gate + p.gate_bias).sigmoid())
