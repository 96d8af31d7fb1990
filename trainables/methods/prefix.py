"""Prefix tuning (Li & Liang 2021, ACL) and P-tuning v2 (Liu et al. 2022, ACL): trained keys and values in every layer.

    attention over [K; P_K], [V; P_V],    P_K, P_V [l, D] per layer, divided among the heads;    no queries are added
    with an MLP of width m:    [P_K, P_V] of a layer = tanh(E W + b) W_layer + b_layer,    E [l, D], W [D, m], W_layer [m, 2 D]

The flat form (m = 0) trains P_K and P_V directly, starting from N(0, 1). With an MLP, E starts like torch's Embedding and the
maps like torch's Linear. Only the 2 L l D numbers of P_K and P_V in all L layers have to be stored, because the MLP is not
needed after training. P-tuning v2 is the flat form with dropout on P_K and P_V, drawn for each example. Its predecessor,
P-tuning (prompts computed by an MLP or LSTM, the baseline in its paper), is not implemented.
Traps: training does not start at the pretrained model. The flat form is unstable at large learning rates. The MLP needs smaller
learning rates, and P-tuning v2 larger ones and more than 20 epochs. The positions of the text are unchanged, as in the adapters
library; peft shifts them by l.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM, normal, uniform
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int, require_share

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Prefix(Method):
    """`length`: number l of keys and values per layer; `mlp`: width m of the MLP, 0 for the flat form."""

    title: ClassVar[str] = "Prefix tuning"
    paper: ClassVar[str] = "Li & Liang 2021"
    family: ClassVar[MethodFamily] = "prompt"
    sites: ClassVar[tuple[Site, ...]] = ("attention.prefix",)
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 5e-3, 1e-2), "length": choice(10, 20, 40)}
    example: ClassVar[Mapping[str, Scalar]] = {"length": 3}
    example_lr: ClassVar[float] = 0.05

    length: int = 20
    mlp: int = 0

    def check(self, shape: Shape | None) -> None:
        require_int("length", self.length, 1, shape.positions if shape else 512, "the most tokens of an example")
        require_int("mlp", self.mlp, 0, 8192)

    @property
    def prefix_tokens(self) -> int:
        return self.length

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        flat = Parameter(shape=(self.length, shape.key_width), init=normal(1), decayed=False)
        if not self.mlp:
            return {"key": flat, "value": flat}
        bound = self.mlp**-0.5
        return {
            "out": Parameter(shape=(self.mlp, 2 * shape.key_width), init=LINEAR_UNIFORM),
            "out_bias": Parameter(shape=(2 * shape.key_width,), init=uniform(-bound, bound)),
        }

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        d, bound = shape.width, shape.width**-0.5
        if not self.mlp:
            return {}
        return {
            "prompt": Parameter(shape=(self.length, d), init=normal(1), decayed=False),
            "hidden": Parameter(shape=(d, self.mlp), init=LINEAR_UNIFORM),
            "hidden_bias": Parameter(shape=(self.mlp,), init=uniform(-bound, bound)),
        }

    def prefix(self, p: Values, at: SiteContext) -> tuple[Tensor, Tensor]:
        if not self.mlp:
            return p.key, p.value
        key, value = ((p.prompt @ p.hidden + p.hidden_bias).tanh() @ p.out + p.out_bias).chunk(2, dim=-1)
        return key, value

    def kept_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """The keys and values of the prefix, without the MLP that computes them."""
        return replace(self, mlp=0).declared_parameters(shape)


@dataclass(frozen=True, kw_only=True)
class PrefixMLP(Prefix):
    """Prefix tuning with an MLP, as first published. It is a separate method because it needs other learning rates."""

    title: ClassVar[str] = "Prefix tuning (MLP)"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "length": choice(10, 20, 40)}
    example: ClassVar[Mapping[str, Scalar]] = {"length": 3, "mlp": 16}
    example_lr: ClassVar[float] = 0.003

    mlp: int = 512

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("mlp", self.mlp, 1, 8192)


@dataclass(frozen=True, kw_only=True)
class PTuningV2(Prefix):
    """P-tuning v2. `dropout`: dropout rate of the added keys and values."""

    title: ClassVar[str] = "P-tuning v2"
    paper: ClassVar[str] = "Liu et al. 2022"
    example: ClassVar[Mapping[str, Scalar]] = {"length": 4}

    dropout: float = 0.1

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_share("dropout", self.dropout)

    @property
    def prefix_dropout(self) -> float:
        return self.dropout
