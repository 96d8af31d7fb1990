"""(IA)^3 (Liu et al. 2022, NeurIPS): three vectors per layer rescale keys, values and feed-forward activations.

    K' = l_k * K,    V' = l_v * V,    FFN(x) = W_2 (l_ff * f(W_1 x + b_1)) + b_2

All vectors start at one, which is the frozen model. Keys and values are scaled including their biases, as in peft.
Traps: peft's default modules for BERT also scale the input of the attention's dense map (64,512 instead of 55,296 parameters on
a base encoder). The vectors are not decayed, because weight decay would pull them to zero. (IA)^3 needs learning rates of 1e-3
to 1e-2.
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
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-3, 1e-2, 3e-2, 1e-1)}

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        return {"scale": Parameter(shape=(shape.ends(site)[1],), init=ONES)}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h * p.scale
