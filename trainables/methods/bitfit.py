"""BitFit (Ben Zaken et al. 2022, ACL): only biases and the head are trained.

    W x + b  ->  W x + b + delta,    delta = 0 at the start

delta is added to the linear maps of every layer; the biases of all LayerNorms are trained directly. In a decoder, most maps have
no biases and the norms none: delta is then a new bias. `bitfit_small` is the
authors' smaller selection: only the biases of the query and intermediate maps. The authors' code also trains the bias of BERT's
pooler (768 numbers); here the pooler is frozen for every method that shares a backbone.
Traps: the bias of a key map adds the same number to all attention scores of a query, so its gradient is zero up to rounding. Adam
turns these rounding errors into updates, which do not change the output. Code that selects parameters by "bias" in their names
leaves the matrices of the new head frozen at random values.
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
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 1e-2, 3e-2)}

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
        "ffn.gate",
        "ffn.intermediate",
        "ffn.dense",
    )
    norms: ClassVar[Literal["none", "biases", "all"]] = "biases"
