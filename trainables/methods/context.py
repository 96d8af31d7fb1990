"""The arguments of a method's formula: its parameters as tensors, and the context of the site where the formula is applied.

Legend: K trials trained together, T tokens of a trial's packed row, b examples of all rows, D width of the hidden states, R width
of a bottleneck, l virtual tokens or prefix length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trainables.methods.spec import Site

if TYPE_CHECKING:
    from torch import Tensor


class Values(dict[str, "Tensor"]):
    """The parameters of one site, and those that all sites share, by name or as attributes: `p.down` is e.g. [K, D, R]."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """One parameter after an optimiser step. All three tensors are views, so that changing them in place changes the trials.

    value: the parameter's value [K, ...].
    grad: the gradient [K, ...] that the step used, after clipping.
    memory: the n = `Method.memories` tensors [n, K, ...] that the method keeps for this parameter between steps.
    """

    value: Tensor
    grad: Tensor
    memory: Tensor


class SiteContext(Protocol):
    """The site and layer (from 0) where a formula is applied in a forward pass, and the tensors available to it there."""

    layer: int
    site: Site

    @property
    def training(self) -> bool:
        """True in training, when dropout is applied and running statistics are updated; False in evaluation."""

    @property
    def map_input(self) -> Tensor:
        """Input of the linear map [K, T, in]. Available only at the output of a linear map."""

    @property
    def sublayer_input(self) -> Tensor:
        """Input of the sub-layer's first linear maps [K, T, D]. Only at a sub-layer's output and at attention.prefix."""

    @property
    def residual(self) -> Tensor:
        """The tensor [K, T, D] that the residual connection adds to h. Available only at a sub-layer's output.

        In a post-norm encoder, it is the sub-layer's input.
        """

    @property
    def weight(self) -> Tensor:
        """Weight [in, out] of the frozen linear map at this site."""

    @property
    def query(self) -> Tensor:
        """The layer's queries [K, T, D], with the heads concatenated. Available only at attention.context."""

    def frozen(self, site: Site) -> tuple[Tensor, Tensor]:
        """Returns weight [in, out] and bias [out] of the frozen linear map at `site` of this layer."""

    def initial_value(self, name: str) -> Tensor:
        """Returns the initial value of a parameter declared FROZEN. It is the same for all trials, hence has no dimension K."""

    def norm(self, h: Tensor) -> Tensor:
        """Applies the frozen LayerNorm that follows this sub-layer to h [K, T, D]. Only at a sub-layer's output."""

    def mean_of_examples(self, z: Tensor) -> Tensor:
        """Returns the mean of z [K, T, n] over the tokens of each example, without padding, as [b, 1, n]."""

    def to_tokens(self, m: Tensor) -> Tensor:
        """Repeats the value of each example in m [b, 1, n] for all of its tokens. Returns [K, T, n]."""

    def to_examples(self, v: Tensor) -> Tensor:
        """Repeats the value of each trial in v [K, l, n] for all of its examples. Returns [b, l, n]."""

    def real(self) -> Tensor:
        """Returns [K, T, 1] with 1 for tokens and 0 for padding at the end of a row."""

    def update_buffer(self, name: str, value: Tensor) -> None:
        """Sets an untrained parameter (a running statistic) to `value` after the optimiser step. In evaluation, does nothing."""
