"""UniPELT (Mao et al. 2022, ACL): prefix tuning, LoRA and an adapter in every layer, each scaled by its own trained gate.

    g = mean over the example's tokens of sigmoid(x w + b),    w [D, 1]: one number per example, layer and gate
    keys, values   [K; g P_K], [V; g P_V] (see prefix.py),    x: the layer's input
    query, value   W x + g (x A) B with one gate each; g replaces LoRA's alpha / r,    x: the layer's input
    adapter        h + g (f(x W_down + b_down) W_up + b_up), f = ReLU, h: the feed-forward sub-layer's output after dropout,
                   x = LN(h + residual) with the frozen LayerNorm, as in a Pfeiffer adapter

The adapter's gate uses the same x, as in the authors' code and the adapters library; the paper's text says the sub-layer's
output. The vectors w and the adapter's matrices start from N(0, 0.02), LoRA's A like torch's Linear, B and all biases at zero,
so that all gates start near 0.5. (In the authors' code, the prefix's gate starts like torch's Linear, which has a slightly
larger variance.)
Trap: the authors' gates are averaged over padding, too, and therefore depend on the other examples of the batch. Here only the
example's own tokens are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM, normal
from trainables.methods.pfeiffer import STD, Pfeiffer
from trainables.methods.prefix import Prefix
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int, require_norm_of_sum

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class UniPELT(Method):
    """`length` and `mlp`: settings of the prefix (prefix.py); `r`: width of the adapter's bottleneck; `rank`: rank of LoRA."""

    title: ClassVar[str] = "UniPELT"
    paper: ClassVar[str] = "Mao et al. 2022"
    family: ClassVar[MethodFamily] = "combination"
    sites: ClassVar[tuple[Site, ...]] = ("attention.query", "attention.value", "attention.prefix", "ffn.output")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(16, 48)}
    example: ClassVar[Mapping[str, Scalar]] = {"length": 3, "r": 4, "rank": 2}

    length: int = 10
    mlp: int = 0
    r: int = 48
    rank: int = 8

    def check(self, shape: Shape | None) -> None:
        self._prefix.check(shape)
        for name in ("r", "rank"):
            require_int(name, getattr(self, name), 1, shape.width if shape else 65536, "the backbone's width")
        require_norm_of_sum(shape)
        if shape and shape.maps_distances:
            raise ValueError(
                "UniPELT scales LoRA of the query map by a gate of each example, but this model (DeBERTa) applies the map to "
                "embeddings of distances, too, which belong to no example; leave the method out for this model"
            )

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        d = shape.width
        gate = {"gate": Parameter(shape=(d, 1), init=normal(STD), decayed=False), "gate_bias": Parameter(shape=(1,))}
        if site == "attention.prefix":
            return gate | self._prefix.parameters(shape, layer, site)
        if site == "ffn.output":
            return gate | Pfeiffer(r=self.r).parameters(shape, layer, site)
        return gate | {
            "a": Parameter(shape=(d, self.rank), init=LINEAR_UNIFORM),
            "b": Parameter(shape=(self.rank, shape.ends(site)[1])),
        }

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        return self._prefix.shared(shape)

    def kept_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Of the prefix only the keys and values, without the MLP that computes them."""
        return replace(self, mlp=0).declared_parameters(shape)

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
            # `at.map_input` is evaluated twice on purpose: with a single view, autograd would add the gradients in another order,
            # which changes the last bits of results.
            return h + at.to_tokens(_gate(at.map_input, p, at)) * (at.map_input @ p.a @ p.b)
        x = at.norm(h + at.residual)
        return h + at.to_tokens(_gate(x, p, at)) * ((x @ p.down + p.down_bias).relu() @ p.up + p.up_bias)

    @property
    def _prefix(self) -> Prefix:
        return Prefix(length=self.length, mlp=self.mlp)


def _gate(x: Tensor, p: Values, at: SiteContext) -> Tensor:
    """Returns the gate's value for each example, [b, 1, 1], from its input x [K, T, D]."""
    return at.mean_of_examples((x @ p.gate + p.gate_bias).sigmoid())
