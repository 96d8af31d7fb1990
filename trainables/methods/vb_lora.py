"""VB-LoRA: LoRA whose A and B are put together from a bank of vectors that all maps share (Li et al. 2024, NeurIPS).

    y = x W + b + x A B,    each stretch of `length` numbers in a column of A or a row of B is the sum of the best k s_i v_i

v_i are the `vectors` vectors [length] of the bank. Each stretch has a logit per vector; the k largest logits choose the
vectors, and s is their softmax. Trained are the bank and all logits; the bank starts uniform in +- 0.02, the logits at N(0,
0.01), as in peft. The product A B is then small but not zero: training starts near the frozen model. There is no alpha.
The logits learn `ratio` times as fast as the bank and the head: in peft's example for MRPC the rates are 1e-2 and 1e-3,
and 4e-3 for the head. They are not decayed.
To use the module again, the bank is kept, and for each stretch the k chosen indices and k - 1 weights (the last one is 1 minus
the others): far less than what is trained.
Traps: `length` must divide the widths of all maps. That example has 90 vectors of 256, which fit no encoder of width 384 or 576;
64 divides the widths of all usual models, and chooses finer. Logits outside the best k have no gradient in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import normal, uniform
from trainables.methods.linear_maps import SIDES, LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape, Stored
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor

BOUND, SIGMA = 0.02, 0.1


@dataclass(frozen=True, kw_only=True)
class VBLoRA(LinearMapMethod):
    """Settings of VB-LoRA.

    `r`: rank; `vectors`: number of vectors in the bank; `length`: of each of them; `k`: vectors that are added up; `ratio`:
    learning rate of the logits divided by that of the bank.
    """

    title: ClassVar[str] = "VB-LoRA"
    paper: ClassVar[str] = "Li et al. 2024"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-4, 1e-3, 3e-3, 1e-2), "r": choice(2, 4, 8)}
    example: ClassVar[Mapping[str, Scalar]] = {"r": 2, "vectors": 12, "length": 8}

    r: int = 4
    vectors: int = 90
    length: int = 64
    k: int = 2
    ratio: float = 10.0

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        require_int("vectors", self.vectors, 2, 65536)
        require_int("k", self.k, 1, self.vectors, "the vectors of the bank")
        require_int("length", self.length, 1, 65536)
        require_number("ratio", self.ratio, 1e-3, 1e3)
        self.require_divisor("length", self.length, shape, SIDES)

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        def logits(width: int) -> Parameter:
            shape = (self.r, width // self.length, self.vectors)
            return Parameter(shape=shape, init=normal(SIGMA), decayed=False, lr_factor=float(self.ratio))

        return {"down": logits(inputs), "up": logits(outputs)}

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        return {"bank": Parameter(shape=(self.vectors, self.length), init=uniform(-BOUND, BOUND))}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        down, up = (self.rows(logits, p.bank) for logits in (p.down, p.up))
        return h.baddbmm(at.map_input @ down.mT, up)

    def rows(self, logits: Tensor, bank: Tensor) -> Tensor:
        """Returns the r rows [K, r, width] that logits [K, r, width / length, vectors] choose from the bank."""
        best = logits.topk(self.k, dim=-1)
        chosen = best.values.softmax(-1)
        weights = chosen.new_zeros(logits.shape).scatter(-1, best.indices, chosen)
        return (weights.flatten(1, 2) @ bank).view(len(logits), self.r, -1)

    def stored(self, shape: Shape, trained: Mapping[str, Tensor] | None = None) -> Stored:
        stretches = sum(self.r * (inputs + outputs) // self.length for inputs, outputs in self.ends(shape))
        index_bits = (self.vectors - 1).bit_length()
        values = self.vectors * self.length + stretches * (self.k - 1)
        return Stored(values=values, position_bits=stretches * self.k * index_bits)
