"""MiSS, first named Bone: all blocks of r rows of a weight are changed by the same trained matrix (Kang and Yin 2024, arXiv
2409.15371).

    y = x W + b + (sum of the blocks of x) D,    D [r, out] = 0 at the start

x is cut into blocks of r inputs, which are added up; a last block that is shorter is filled with zeros. Training starts at the
frozen model. There is no alpha.
This is peft's MiSS with its default initialisation. Its variants "bat", which multiplies D with the frozen weight, and "mini"
are not here.
Traps: r is not comparable with LoRA's: D has r out numbers and a rank of up to r. peft's default is 64, which trains twice as
many numbers as LoRA at r = 16; 16 has those of LoRA at r = 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.linear_maps import LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MiSS(LinearMapMethod):
    """`r`: number of inputs in a block; at most the smallest input width of the maps that the method acts on."""

    title: ClassVar[str] = "MiSS"
    paper: ClassVar[str] = "Kang and Yin 2024"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(16, 32, 64)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("block",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 6, "targets": "all"}

    r: int = 16

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        widths = [inputs for inputs, _ in self.ends(shape)] if shape else [65536]
        require_int("r", self.r, 1, min(widths), "the smallest input width of the maps")

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {"block": Parameter(shape=(self.r, outputs))}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        x = at.map_input
        whole = x.shape[-1] // self.r * self.r
        h = h.baddbmm(x[..., :whole].unflatten(-1, (-1, self.r)).sum(-2), p.block)
        rest = x[..., whole:]
        return h.baddbmm(rest, p.block[:, : rest.shape[-1]]) if rest.shape[-1] else h
