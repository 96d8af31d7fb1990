"""BitFit (Ben Zaken et al. 2022, ACL): only biases are trained, and the head.

    W x + b  ->  W x + b + delta,    delta = 0 at the start

for the six linear maps of every layer, and the biases of all LayerNorms themselves. `bitfit_small` is the authors' smaller
selection: query and intermediate biases alone.
Their code also frees BERT's pooler bias (768 numbers); here the pooler is frozen for every method that shares a backbone.
Traps: a key's bias adds the same to all scores of a query, so its gradient is zero up to rounding, which Adam turns into steps;
they change nothing. Snippets that free "bias" by name leave the new head's matrices frozen at random values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BitFitSmall(Method):
    title: ClassVar[str] = "BitFit (query, intermediate)"
    paper: ClassVar[str] = "Ben Zaken et al. 2022"
    family: ClassVar[MethodFamily] = "scaling and bias"
    sites: ClassVar[tuple[Site, ...]] = ("attention.query", "ffn.intermediate")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(5e-4, 1e-3, 3e-3, 1e-2)}

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        return {"delta": Parameter(shape=(shape.ends(site)[1],))}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h + p.delta


@dataclass(frozen=True, kw_only=True)
class BitFit(BitFitSmall):
    title: ClassVar[str] = "BitFit"
    sites: ClassVar[tuple[Site, ...]] = (
        "attention.query",
        "attention.key",
        "attention.value",
        "attention.dense",
        "ffn.intermediate",
        "ffn.dense",
    )
    norms: ClassVar[Literal["none", "biases", "all"]] = "biases"
