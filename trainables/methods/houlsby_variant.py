"""Variants of the Houlsby adapter that Houlsby et al. 2019 (section 3.6) report to be no better. A trial uses one of them.

    A(h) = h + f(h W_down + b_down) W_up + b_up    is the Houlsby adapter; each variant changes one part of it:

    norm_input       f(LN(h) W_down + b_down)             a new LayerNorm; the skip connection adds h without it
    norm_bottleneck  f(LN(h W_down + b_down))             a new LayerNorm in the bottleneck
    batch_norm       f(BN(h W_down))                      statistics over all tokens of the mini-batch, without padding
    extra_layers     f(... f(f(h W_down + b_down) W_1 + b_1) ...)    `extra` square layers, which start as the identity
    tanh, sigmoid, gelu, swish                            this f instead of ReLU
    attention_only, ffn_only                              an adapter at only one of the two sites
    parallel         h + f(x W_down + b_down) W_up + b_up       x: the sub-layer's input
    multiplicative   h * (1 + f(x W_down + b_down) W_up + b_up)

The paper gives names without formulas, and no code was released: these definitions are ours. Everything else (initial values,
sites, trained LayerNorms) is as in `adapter.py`.
Traps: batch norm uses the statistics of the batch in training and running statistics in evaluation. The latter are part of the
trial's state and updated with momentum 0.1; a batch of 8 examples gives noisy statistics. A bias before batch norm would
cancel, and Adam would amplify the rounding errors of its gradient, so b_down stays zero; it is still counted as in the other
variants. Unlike `parallel.py`, "parallel" has no scale, and both matrices start small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.activations import gelu, swish
from trainables.methods.adapter import Adapter
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import IDENTITY, ONES
from trainables.methods.spec import Parameter, Shape, Site
from trainables.methods.validate import require_int, require_one_of

if TYPE_CHECKING:
    from torch import Tensor

Variant = Literal[
    "norm_input",
    "norm_bottleneck",
    "batch_norm",
    "extra_layers",
    "tanh",
    "sigmoid",
    "gelu",
    "swish",
    "attention_only",
    "ffn_only",
    "parallel",
    "multiplicative",
]
VARIANTS: tuple[Variant, ...] = Variant.__args__  # type: ignore[attr-defined]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda z: z.tanh(),
    "sigmoid": lambda z: z.sigmoid(),
    "gelu": gelu,
    "swish": swish,
}
PLACES: dict[str, tuple[Site, ...]] = {"attention_only": ("attention.output",), "ffn_only": ("ffn.output",)}
EPS, MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True, kw_only=True)
class HoulsbyVariant(Adapter):
    """`variant`: name of the variant; `r`: width of the bottleneck; `extra`: number of square layers in "extra_layers"."""

    title: ClassVar[str] = "Houlsby variant"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(32, 64, 128)}
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "variant": "batch_norm"}

    variant: Variant = "norm_input"
    extra: int = 1

    @property
    def reads_all_tokens(self) -> bool:
        return self.variant == "batch_norm"

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_one_of("variant", self.variant, VARIANTS)
        require_int("extra", self.extra, 1, 8)

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        if site not in PLACES.get(self.variant, self.sites):
            return {}
        return super().parameters(shape, layer, site) | self._more(shape.width)

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        x = at.sublayer_input if self.variant in ("parallel", "multiplicative") else h
        if self.variant == "norm_input":
            x = normalised(x, *moments(x)) * p.gain + p.shift
        z = self._activated(x @ p.down, p, at)
        for i in range(self._layers):
            z = (z @ p[f"extra{i}"] + p[f"extra{i}_bias"]).relu()
        branch = z @ p.up + p.up_bias
        return h + (h * branch if self.variant == "multiplicative" else branch)

    def stored(self, shape: Shape) -> float:
        running = 2 * self.r * self._modules(shape) if self.variant == "batch_norm" else 0
        return super().stored(shape) + running

    @property
    def _layers(self) -> int:
        return self.extra if self.variant == "extra_layers" else 0

    def _modules(self, shape: Shape) -> int:
        return shape.layers * len(PLACES.get(self.variant, self.sites))

    def _more(self, d: int) -> dict[str, Parameter]:
        """Returns the parameters, by name, that the variant adds to those of the Houlsby adapter; `d`: width of the backbone."""
        width, declared = d if self.variant == "norm_input" else self.r, {}
        for i in range(self._layers):
            declared[f"extra{i}"] = Parameter(shape=(self.r, self.r), init=IDENTITY)
            declared[f"extra{i}_bias"] = Parameter(shape=(self.r,))
        if self.variant in ("norm_input", "norm_bottleneck", "batch_norm"):
            declared |= {"gain": Parameter(shape=(width,), init=ONES), "shift": Parameter(shape=(width,))}
        if self.variant == "batch_norm":
            declared["running_mean"] = Parameter(shape=(self.r,), trained=False)
            declared["running_variance"] = Parameter(shape=(self.r,), init=ONES, trained=False)
        return declared

    def _activated(self, z: Tensor, p: Values, at: SiteContext) -> Tensor:
        if self.variant == "batch_norm":
            return (normalised(z, *batch_moments(z, p, at)) * p.gain + p.shift).relu()
        z = z + p.down_bias
        if self.variant == "norm_bottleneck":
            z = normalised(z, *moments(z)) * p.gain + p.shift
        return ACTIVATIONS[self.variant](z) if self.variant in ACTIVATIONS else z.relu()


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and variance over the last dimension of z [..., n], each [..., 1]."""
    return z.mean(-1, keepdim=True), z.var(-1, keepdim=True, correction=0)


def batch_moments(z: Tensor, p: Values, at: SiteContext) -> tuple[Tensor, Tensor]:
    """Returns mean and variance [K, 1, R] of z [K, T, R] over each trial's tokens, and updates the running statistics.

    In evaluation, returns the running statistics.
    """
    if not at.training:
        return p.running_mean, p.running_variance
    real = at.real()
    number = real.sum(1, keepdim=True)
    mean = (z * real).sum(1, keepdim=True) / number
    variance = ((z - mean).square() * real).sum(1, keepdim=True) / number
    at.update_buffer("running_mean", p.running_mean.lerp(mean, MOMENTUM))
    at.update_buffer("running_variance", p.running_variance.lerp(variance * number / (number - 1), MOMENTUM))
    return mean, variance


def normalised(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (z - mean) * (variance + EPS).rsqrt()
