"""Residents that share a method, its settings and a head: their parameters stacked as [G, ...], updated in one go.

Every trial owns one row of flat buffers [G, P] for values, gradients and Adam's moments; the tensors that formulas see are views
of them, made for each pass, so that the gradient arrives in one piece.

Legend: G trials of the group, P parameters of one trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.language import Recipe
from trainables.backbone.backbone import Backbone
from trainables.methods.context import StepValues
from trainables.training.parameter_layout import ParameterLayout, ParamGroup
from trainables.training.private_weights import PrivateWeights

# Columns of the flat buffers updated at a time: the dozen passes of Adam then run in the processor's cache.
CHUNK = 1 << 17


@dataclass(frozen=True, kw_only=True)
class StepHyperparameters:
    """What one step of G trials needs, all [G, 1]; `step` counts this one, from 1, of `total`. `share`: of the peak lr.

    `noise`: the seed of what a trial with a backbone of its own draws in this step.
    """

    lr: Tensor
    share: Tensor
    step: Tensor
    total: Tensor
    decay: Tensor
    clip: Tensor
    noise: int


class StackedParameters:
    """G trials with one layout. Rows are in the order in which their trials joined.

    `keep` [G, P], where a method masks: False for entries that never move. `memory` [n, G, P]: what a method's `after_step`
    remembers. `losses` [G]: sums over the steps of each trial's epoch so far.
    """

    def __init__(
        self,
        layout: ParameterLayout,
        backbone: Backbone,
        recipe: Recipe,
        rows: Tensor,
        moments: Tensor | None = None,
        keep: Tensor | None = None,
        memory: Tensor | None = None,
    ):
        """`rows`: [G, P] values; `moments`: [2, G, P] of Adam, `memory`: zeros when None. All moved to the backbone's device."""
        device = backbone.device
        self.layout, self.recipe, self._backbone = layout, recipe, backbone
        self.values = rows.to(device)
        self.moments = torch.zeros(2, *rows.shape, device=device) if moments is None else moments.to(device)
        size = layout.method.memories
        self.memory = torch.zeros(size, *rows.shape, device=device) if memory is None else memory.to(device)
        self.keep = None if keep is None else keep.to(device)
        self.losses = torch.zeros(len(rows), device=device)
        self.leaf = self.values.detach().requires_grad_()
        self.constants = layout.constants(backbone)
        self._kept: dict[str, Tensor] = {}
        self.own = None if layout.method.shares_backbone else PrivateWeights(layout, backbone, self.values, self.leaf)

    @classmethod
    def of(cls, parts: list[StackedParameters], chosen: list[list[int]]) -> StackedParameters:
        """A group of the chosen rows of several groups of one layout, values, moments and masks kept."""
        lead = parts[0]
        pairs = list(zip(parts, chosen, strict=True))
        keep = [g.keep[i] for g, i in pairs if g.keep is not None]
        group = cls(
            lead.layout,
            lead._backbone,
            lead.recipe,
            torch.cat([g.values[i] for g, i in pairs]),
            torch.cat([g.moments[:, i] for g, i in pairs], dim=1),
            torch.cat(keep) if keep else None,
            torch.cat([g.memory[:, i] for g, i in pairs], dim=1),
        )
        group.losses = torch.cat([g.losses[i] for g, i in pairs])
        return group

    def hold(self, keep: Tensor, at: Tensor | None = None) -> None:
        """From now on, what `keep` [G, P] is False for does not move: it stays as it is, or `at` [G, P] if that is given."""
        self.keep = keep
        if at is not None:
            self.values.copy_(torch.where(keep, self.values, at))

    def open(self, rows: slice | Sequence[int], noise: int | None = None) -> dict[str, Tensor]:
        """The tensors of some of the group's rows by name, [G, ...] for matrices and [G, 1, N] for vectors, for one pass.

        `noise`: as in `StepHyperparameters`; None in evaluation.
        """
        if self.own:
            return self.own.open(noise)
        leaf = self.leaf if rows == slice(None) else self.leaf[rows]
        entries = self.layout.entries
        parts = leaf.split([e.size for e in entries], dim=1)
        return {e.name: part.view(e.stacked(len(leaf))) for e, part in zip(entries, parts, strict=True)}

    def collect(self) -> None:
        """After the backward pass: bring the gradients of computed weights into the row."""
        if self.own:
            self.own.close()

    def keep_value(self, name: str, value: Tensor) -> None:
        """The value [G, ...] that a parameter without a gradient has after this step."""
        self._kept[name] = value.detach()

    def step(self, pace: StepHyperparameters) -> None:
        """One AdamW step with decoupled decay for every trial, each at its own pace. Consumes the gradients."""
        grads = self.leaf.grad
        assert grads is not None
        if self.keep is not None:
            grads.mul_(self.keep)
        grads.mul_((pace.clip / (grads.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0))
        if self.own:
            self.own.thin(grads, pace.noise)
        for run in self.layout.runs:
            lr = pace.lr if run.lr is None else run.lr * pace.share
            if self.own:
                self._fused(run, grads, lr, pace)
            else:
                self._stacked(run, grads, lr, pace)
        self._after(grads, pace)
        self.forget_gradients()

    def forget_gradients(self) -> None:
        self._kept.clear()
        if self.own:
            self.own.forget_gradients()
        else:
            self.leaf.grad = None

    def _after(self, grads: Tensor, pace: StepHyperparameters) -> None:
        for name, value in self._kept.items():
            e = self.layout.by_name[name]
            self.values[:, e.start : e.stop] = value.reshape(len(self.values), -1)
        if not self.layout.method.memories:
            return
        G = len(self.values)
        everything = {}
        for e in self.layout.entries:
            part, shape = slice(e.start, e.stop), e.stacked(G)
            memory = self.memory[:, :, part].unflatten(-1, shape[1:])
            everything[e.name] = StepValues(
                value=self.values[:, part].view(shape), grad=grads[:, part].view(shape), memory=memory
            )
        self.layout.method.after_step(everything, pace.step[:, 0], pace.total[:, 0])

    def _stacked(self, run: ParamGroup, grads: Tensor, lr: Tensor, pace: StepHyperparameters) -> None:
        r = self.recipe
        size, rate = -lr / (1 - r.beta1**pace.step), (1 - r.beta2**pace.step).sqrt()
        keep = 1 - lr * pace.decay
        for part in _chunks(run):
            grad, value = grads[:, part], self.values[:, part]
            first, second = self.moments[0][:, part], self.moments[1][:, part]
            first.lerp_(grad, 1 - r.beta1)
            second.mul_(r.beta2).addcmul_(grad, grad, value=1 - r.beta2)
            if run.decayed:
                value.mul_(keep)
            value.addcdiv_(first * size, (second.sqrt() / rate).add_(r.eps))

    def _fused(self, run: ParamGroup, grads: Tensor, lr: Tensor, pace: StepHyperparameters) -> None:
        """A whole backbone's worth of parameters: torch's fused kernel, several times faster there, on the same buffers."""
        part, r = slice(run.start, run.stop), self.recipe
        value = self.values[0, part].detach()
        value.grad = grads[0, part]
        decay = float(pace.decay) if run.decayed else 0.0
        if decay and self.keep is not None:  # the kernel would decay what the mask keeps out
            value.addcmul_(value, self.keep[0, part], value=-float(lr) * decay)
            decay = 0.0
        adam = torch.optim.AdamW([value], float(lr), (r.beta1, r.beta2), r.eps, decay, fused=True)
        adam.state[value] = {
            "step": pace.step.flatten()[0] - 1,
            "exp_avg": self.moments[0, 0, part],
            "exp_avg_sq": self.moments[1, 0, part],
        }
        adam.step()


def _chunks(run: ParamGroup) -> Iterator[slice]:
    for a in range(run.start, run.stop, CHUNK):
        yield slice(a, min(a + CHUNK, run.stop))
