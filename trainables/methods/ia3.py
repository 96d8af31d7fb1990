"""(IA)^3 (Liu et al. 2022, NeurIPS): three vectors per layer rescale keys, values and the feed-forward layer's hidden state.

    K' = l_k * K,    V' = l_v * V,    FFN(x) = W_2 (l_ff * f(W_1 x)) + b_2,    all starting at one: the identity

Keys and values are scaled with their biases, as in peft.
Traps: peft's default modules for BERT also scale the input of the attention's dense layer (64,512 instead of 55,296 on a base
encoder); weight decay would pull the vectors to zero, so they have none; wants learning rates of 1e-3 to 1e-2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import ONES
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IA3(Method):
    title: ClassVar[str] = "(IA)³"
    paper: ClassVar[str] = "Liu et al. 2022"
    family: ClassVar[MethodFamily] = "scaling and bias"
    sites: ClassVar[tuple[Site, ...]] = ("attention.key", "attention.value", "ffn.hidden")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(5e-4, 1e-3, 3e-3, 1e-2)}

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        return {"scale": Parameter(shape=(shape.ends(site)[1],), init=ONES)}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h * p.scale
