"""AdaLoRA: LoRA in the shape of a singular value decomposition, whose ranks are cut during training (Zhang et al. 2023, ICLR).

    y = x W + b + (alpha / r) (x A * e) B,    A [in, r], B [r, out] ~ N(0, 0.02^2), e [r] = 0
    loss + gamma * mean over all A and B of ||A^T A - I||_F, ||B B^T - I||_F

After each step every number w with gradient g has the sensitivity |w g|; its score is the moving average of that, times the
moving average of its distance to that average (both 0.85). A triplet (column of A, entry of e, row of B) has the score of its e
plus the means over its column and its row. Of all triplets of the trial the best stay, as many as the budget allows. All others
get e = 0, tied ones together; they may come back. The budget falls as a cubic from all to `target` per map, between the shares
`tinit` and 1 - `tfinal` of the steps; then scores and masks stay. Starts as the frozen model.
As in peft, but tinit and tfinal are shares of the planned steps (the authors' GLUE scripts: 600 to 800 and 1800 to 3500 steps).
Early stopping does not rescale them: a trial that it ends before 1 - `tfinal` has more than `target` per map.
Traps: at first e alone moves the output, one number per triplet beside short columns: learning rates lie well above LoRA's (the
authors': 8e-4 to 2.2e-3 under a scale of 10 and more); until then A and B have no gradient but the orthogonality's. Masked
triplets still occupy memory; the reported loss is without gamma's term. `stored` is exact where all maps have one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, StepValues, Values
from trainables.methods.initializers import normal
from trainables.methods.lora import LoRA
from trainables.methods.spec import Parameter, Shape
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor

SIGMA, BETA = 0.02, 0.85


@dataclass(frozen=True, kw_only=True)
class AdaLoRA(LoRA):
    """`r`: initial rank; `target`: final mean rank; `every`: steps between cuts; `gamma`: factor of the orthogonality term."""

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

    def beside(self, inputs: int, outputs: int) -> dict[str, Parameter]:
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
        """The number [K] of triplets that stay after this step, in `maps` maps together."""
        left = 1 - ((step.double() - first) / (last - first).clamp(min=1)).clamp(0, 1)
        return ((self.r - self.target) * maps * left**3 + self.target * maps).floor().long()

    def stored(self, shape: Shape) -> float:
        return self.counts(shape)[1] * self.target / self.r


def _scores(v: StepValues, rate: Tensor) -> Tensor:
    """The score of every entry [K, ...], after its moving averages were updated with `rate` [K, 1, 1]."""
    average, deviation = v.memory[0], v.memory[1]
    sensitivity = (v.value * v.grad).abs()
    average.lerp_(sensitivity, rate)
    deviation.lerp_((sensitivity - average).abs(), rate)
    return average * deviation


def _lowest(scores: Tensor, number: Tensor) -> Tensor:
    """True for the `number` [K] lowest scores of each row of [K, n], and for scores tied with the highest of them."""
    highest = scores.sort(dim=1).values.gather(1, (number - 1).clamp(min=0)[:, None])
    return (scores <= highest) & (number > 0)[:, None]
