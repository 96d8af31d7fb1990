"""What a method's formula receives: its parameters as tensors, and the context of the site where it acts.

Legend: K trials, T tokens of a trial's row, b examples of all rows, D width, F width of the feed-forward layer, l virtual tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trainables.methods.spec import Site

if TYPE_CHECKING:
    from torch import Tensor


class Values(dict[str, "Tensor"]):
    """The parameters of one site, and those that all sites share, reached as attributes: `p.down` is [K, D, R]."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """One parameter after a step, all views of the trial's own: values and grads [K, ...], memory [n, K, ...]."""

    value: Tensor
    grad: Tensor
    memory: Tensor


class SiteContext(Protocol):
    """The site in a forward pass where a formula acts, and the tensors that the formula may read there."""

    layer: int
    site: Site

    @property
    def training(self) -> bool:
        """Whether dropout acts, and running statistics move."""

    @property
    def map_input(self) -> Tensor:
        """What the linear map reads [K, T, in]. Only at the output of a linear map."""

    @property
    def sublayer_input(self) -> Tensor:
        """What the sub-layer's first linear maps read [K, T, D]. Only at a sub-layer's output and at attention.prefix."""

    @property
    def residual(self) -> Tensor:
        """What will be added to h [K, T, D]; a post-norm encoder adds the sub-layer's input. Only at a sub-layer's output."""

    @property
    def weight(self) -> Tensor:
        """The frozen linear map's weight [in, out]."""

    @property
    def query(self) -> Tensor:
        """At attention.context: this layer's queries, heads joined [K, T, D]."""

    def frozen(self, site: Site) -> tuple[Tensor, Tensor]:
        """Weight [in, out] and bias [out] of a linear map of this layer."""

    def initial_value(self, name: str) -> Tensor:
        """The initial value of a parameter declared FROZEN; the same for every trial, without K."""

    def norm(self, h: Tensor) -> Tensor:
        """The frozen LayerNorm that follows this output, of h [K, T, D]."""

    def mean_of_examples(self, z: Tensor) -> Tensor:
        """Mean over each example's own tokens: z [K, T, n] -> [b, 1, n]."""

    def to_tokens(self, m: Tensor) -> Tensor:
        """Repeats each example's value for all of its tokens: m [b, 1, n] -> [K, T, n]."""

    def to_examples(self, v: Tensor) -> Tensor:
        """Repeats each trial's value for all of its examples: v [K, l, n] -> [b, l, n]."""

    def real(self) -> Tensor:
        """[K, T, 1]: 1 for tokens, 0 for padding."""

    def update_buffer(self, name: str, value: Tensor) -> None:
        """In training: set a parameter that gets no gradient (running statistics) to `value` at the end of this step."""
