"""What a method is: a formula over one trial's parameters, and the declaration of those parameters.

A method file never imports torch. Its formula is written with operators and tensor methods, so that with parameters of
shape [K, ...] it is K trials in one batched product; a leading K is added by the engine, never by the method.

Legend: K slots, T tokens, D width, R bottleneck, L layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from search_spaces.language import Scalar

if TYPE_CHECKING:
    from torch import Tensor

# Places where a method can act. Both sites give the sub-layer's output after its dropout, before the residual add.
Site = Literal["attention.output", "ffn.output"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a backbone that decide parameter counts.

    `total` is the pretrained base model with its pooler (the denominator of percentages); `pooler` whether the
    classification model uses it; `embeddings` counts the embedding block, its LayerNorm included.
    """

    layers: int
    width: int
    ffn: int
    heads: int
    total: int
    pooler: bool
    embeddings: int

    @property
    def layer_norms(self) -> int:
        """Gains and biases of all LayerNorms: two per layer and the embeddings' one."""
        return (2 * self.layers + 1) * 2 * self.width

    def head(self, outputs: int) -> int:
        """Parameters of the classification head: one linear on BERT's pooler, two on RoBERTa's first token."""
        d = self.width
        return d * outputs + outputs + (0 if self.pooler else d * d + d)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter of a site: its shape without K, and its start.

    A shape of one dimension is a bias: it reaches the formula as [K, 1, n], is not decayed and never pruned.
    `std` is the deviation of a normal distribution cut at two deviations; 0 starts at zero; "identity" at the unit matrix.
    """

    shape: tuple[int, ...]
    std: float | Literal["identity", "kaiming"] = 0.0


class Values(dict[str, "Tensor"]):
    """The parameters of one site, reached as attributes: `p.down` is [K, D, R]."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods; the fields of a subclass are its settings, checked by `check`."""

    title: ClassVar[str]
    paper: ClassVar[str]
    family: ClassVar[str]
    sites: ClassVar[tuple[Site, ...]] = ()
    # False: trains backbone weights, hence needs an engine with a backbone of its own.
    shares_backbone: ClassVar[bool] = True
    # Adapter papers train every LayerNorm beside their modules.
    trains_layer_norms: ClassVar[bool] = True
    # How a mask is drawn before the first step; see trainables/pruning.py.
    prunes: ClassVar[bool] = False

    def check(self, shape: Shape | None) -> None:  # noqa: B027 - a method without demands has nothing to check
        """Raise ValueError for settings that no backbone, or not this one, allows. `shape` None: not known yet."""

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        """What each site of each layer holds."""
        return {}

    def transform(self, h: Tensor, p: Values) -> Tensor:
        """The formula at a site: h [K, T, D] -> [K, T, D]."""
        return h

    @abstractmethod
    def counts(self, shape: Shape) -> tuple[int, int]:
        """(weights, module): matrices alone, and with biases, in closed form."""

    def settings(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def require_int(name: str, value: Scalar, low: int, high: int, what: str = "") -> None:
    """Raise ValueError unless `value` is a whole number in [low, high]; `what` explains the upper bound."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        bound = f" ({what})" if what else ""
        raise ValueError(f"{name} = {value!r}: must be a whole number between {low} and {high}{bound}")


def require_one_of(name: str, value: Scalar, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(allowed)}")


def require_share(name: str, value: Scalar) -> None:
    """Raise ValueError unless `value` is a share in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} = {value!r}: must be a share in [0, 1)")
