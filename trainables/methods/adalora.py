"""AdaLoRA: LoRA in the form of a singular value decomposition whose ranks are reduced in training (Zhang et al. 2023, ICLR).

    y = x W + b + (alpha / r) (x A * e) B,    at the start A [in, r], B [r, out] ~ N(0, 0.02^2), e [r] = 0
    loss + gamma * mean over all A and B of ||A^T A - I||_F, ||B B^T - I||_F

Training starts at the frozen model. After each step, the score of every parameter entry w with gradient g is the product of two
moving averages (both with factor 0.85): that of its sensitivity |w g|, and that of the sensitivity's distance to this average.
A triplet is a column of A, the entry of e and the row of B that belong together. Its score is the score of the entry of e plus
the mean scores of the column and of the row. The trial's triplets with the highest scores are kept, as many as the budget
allows. For all others, and for those whose score equals the best score among them, e is set to zero; they can return later. The
budget decreases as a cubic function from all triplets to `target` per linear map, from the fraction `tinit` of the steps to the
fraction 1 - `tfinal`; after that, scores and masks are fixed.
This is as in peft, except that `tinit` and `tfinal` are fractions of the planned steps (the authors' GLUE scripts use 600 to
800 and 1800 to 3500 steps). Early stopping does not rescale them: only epochs that end at 1 - `tfinal` of the steps or later
count as the best epoch, for patience and at ASHA's rungs. Before, the model has more than `target` triplets per map, and its
score is not that of the row.
Traps: at first only e, one number per triplet, changes the output, and A and B get a gradient from the orthogonality term
alone. Learning rates are therefore well above LoRA's (the authors use 8e-4 to 2.2e-3 with a scale of 10 and more). Masked
triplets still occupy memory in training; only the others have to be stored. The reported loss excludes the orthogonality term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, StepValues, Values
from trainables.methods.initializers import normal
from trainables.methods.lora import LoRA
from trainables.methods.spec import Parameter, Shape, Stored
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor

SIGMA, BETA = 0.02, 0.85


@dataclass(frozen=True, kw_only=True)
class AdaLoRA(LoRA):
    """Settings of AdaLoRA.

    `r`: initial rank; `target`: final mean rank per map; `tinit`, `tfinal`: fractions of the steps before and after the budget
    decreases; `every`: number of steps between two selections of triplets; `gamma`: factor of the orthogonality term.
    """

    title: ClassVar[str] = "AdaLoRA"
    paper: ClassVar[str] = "Zhang et al. 2023"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 2e-3, 5e-3, 1e-2), "target": choice(2, 4, 8)}
    penalised: ClassVar[bool] = True
    memories: ClassVar[int] = 2
    example: ClassVar[Mapping[str, Scalar]] = {"r": 6, "target": 2}
    example_lr: ClassVar[float] = 0.01

    r: int = 12
    target: int = 8
    tinit: float = 0.15
    tfinal: float = 0.5
    every: int = 1
    gamma: float = 0.5

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("target", self.target, 1, self.r, "the rank at the start")
        require_number("tinit", self.tinit, 0, 0.9)
        require_number("tfinal", self.tfinal, 0, 0.9)
        require_number("tinit + tfinal", self.tinit + self.tfinal, 0, 0.95)
        require_int("every", self.every, 1, 1000)
        require_number("gamma", self.gamma, 0, 100)

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {
            "down": Parameter(shape=(inputs, self.r), init=normal(SIGMA)),
            "singular": Parameter(shape=(self.r,)),
            "up": Parameter(shape=(self.r, outputs), init=normal(SIGMA)),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h.baddbmm(at.map_input @ p.down * p.singular, p.up, alpha=self.scale)

    def penalty(self, everything: Mapping[str, Values]) -> Tensor:
        factors = [rows for p in everything.values() if "singular" in p for rows in (p.down.mT, p.up)]
        identity = factors[0].new_ones(self.r).diag()
        distances = [(rows @ rows.mT - identity).norm(dim=(1, 2)) for rows in factors]
        return sum(distances[1:], distances[0]) * (self.gamma / len(distances))

    def target_step(self, total: int) -> int:
        return total - round(self.tfinal * total)

    def after_step(self, everything: Mapping[str, StepValues], step: Tensor, total: Tensor) -> None:
        first, last = (self.tinit * total.double()).round(), total - (self.tfinal * total.double()).round()
        maps = [name.removesuffix(".singular") for name in everything if name.endswith(".singular")]
        rate = (1 - BETA) * (step < last)[:, None, None].to(step.dtype)
        scores = step.new_empty(len(step), len(maps), self.r)
        for i, m in enumerate(maps):
            down, singular, up = (_scores(everything[f"{m}.{part}"], rate) for part in ("down", "singular", "up"))
            scores[:, i] = down.mean(1) + singular[:, 0] + up.mean(2)
        cut = scores[0].numel() - self.budget(step, first, last, len(maps))
        due = (step >= last) | (step % self.every == 0)
        masked = (_lowest(scores.flatten(1), cut) & due[:, None]).view(scores.shape)
        for i, m in enumerate(maps):
            everything[f"{m}.singular"].value.masked_fill_(masked[:, i, None], 0)

    def budget(self, step: Tensor, first: Tensor, last: Tensor, maps: int) -> Tensor:
        """Returns, for each trial, the number [K] of triplets kept after this step in all `maps` linear maps together.

        The budget decreases from step `first` to step `last`; all three steps are [K].
        """
        left = 1 - ((step.double() - first) / (last - first).clamp(min=1)).clamp(0, 1)
        return ((self.r - self.target) * maps * left**3 + self.target * maps).floor().long()

    def stored(self, shape: Shape, trained: Mapping[str, Tensor] | None = None) -> Stored:
        """The triplets whose e is not zero. Without `trained`: `target` of every map, while they may be shared out unevenly."""
        if trained is None:
            return Stored(values=self.target * sum(inputs + outputs + 1 for inputs, outputs in self.ends(shape)))
        maps = [name.removesuffix(".singular") for name in trained if name.endswith(".singular")]
        used = [int((trained[f"{m}.singular"] != 0).sum()) for m in maps]
        sizes = [trained[f"{m}.down"].shape[-2] + trained[f"{m}.up"].shape[-1] + 1 for m in maps]
        return Stored(values=sum(number * size for number, size in zip(used, sizes, strict=True)))


def _scores(v: StepValues, rate: Tensor) -> Tensor:
    """Update the moving averages in `v.memory` with `rate` [K, 1, 1]. Returns the score of every entry, [K, ...]."""
    average, deviation = v.memory[0], v.memory[1]
    sensitivity = (v.value * v.grad).abs()
    average.lerp_(sensitivity, rate)
    deviation.lerp_((sensitivity - average).abs(), rate)
    return average * deviation


def _lowest(scores: Tensor, number: Tensor) -> Tensor:
    """Returns [K, n]: True for the `number` [K] lowest `scores` [K, n] of each row.

    Scores equal to the highest of these are True, too.
    """
    highest = scores.sort(dim=1).values.gather(1, (number - 1).clamp(min=0)[:, None])
    return (scores <= highest) & (number > 0)[:, None]
