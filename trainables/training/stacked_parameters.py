"""The parameters, gradients and AdamW state of trials that share a layout, stacked and updated together.

Every trial owns one row of flat buffers [K, P]. The tensors that a method's formulas use are views of these buffers, made
for each pass, so that autograd returns one gradient [K, P]. Data, schedules and scores are kept in `TrialState`.

Legend: K trials, P parameters of one trial, n tensors that a method's `after_step` keeps between steps, N length of a vector.
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

# Columns of the flat buffers that Adam updates at a time, few enough for the dozen operators to work in the processor's cache.
CHUNK = 1 << 17


@dataclass(frozen=True, kw_only=True)
class StepHyperparameters:
    """What one optimiser step needs beside parameters and gradients; every tensor is [K, 1], one entry per trial."""

    # Learning rate of this step.
    lr: Tensor
    # Learning rate of this step as a fraction of the peak learning rate.
    lr_scale: Tensor
    # Number of this step in the phase, from 1.
    step: Tensor
    # Steps of the phase.
    total_steps: Tensor
    # Decoupled weight decay.
    weight_decay: Tensor
    # Upper bound of each trial's gradient norm.
    max_grad_norm: Tensor
    # Seed of the random numbers of `PrivateWeights` in this step.
    noise_seed: int


class StackedParameters:
    """Flat buffers of K trials with the same `ParameterLayout`. Row i of every buffer belongs to the same trial.

    values        [K, P]      parameter values
    leaf          [K, P]      the same storage as an autograd leaf; `leaf.grad` receives the gradients
    moments       [2, K, P]   Adam's first and second moments
    memory        [n, K, P]   tensors that a method's `after_step` keeps between steps
    pruning_mask  [K, P]      False for pruned entries, which never change; None without a mask
    losses        [K]         sum of the losses of each trial's current epoch
    """

    def __init__(
        self,
        layout: ParameterLayout,
        backbone: Backbone,
        recipe: Recipe,
        values: Tensor,
        moments: Tensor | None = None,
        pruning_mask: Tensor | None = None,
        memory: Tensor | None = None,
    ):
        """Use `values` [K, P] as storage, without a copy if they are on the backbone's device; the other tensors likewise.

        `moments` and `memory` are zeros if None.
        """
        device = backbone.device
        self.layout, self.recipe, self._backbone = layout, recipe, backbone
        self.values = values.to(device)
        self.moments = torch.zeros(2, *values.shape, device=device) if moments is None else moments.to(device)
        size = layout.method.memories
        self.memory = torch.zeros(size, *values.shape, device=device) if memory is None else memory.to(device)
        self.pruning_mask = None if pruning_mask is None else pruning_mask.to(device)
        self.losses = torch.zeros(len(values), device=device)
        self.leaf = self.values.detach().requires_grad_()
        self.constants = layout.constants(backbone)
        self._updated_buffers: dict[str, Tensor] = {}
        shared = layout.method.shares_backbone
        self.private_weights = None if shared else PrivateWeights(layout, backbone, self.values, self.leaf)

    @classmethod
    def concatenate(cls, parts: list[StackedParameters], rows: Sequence[Sequence[int]]) -> StackedParameters:
        """Returns copies of the given rows of each part, concatenated: values, optimiser state, masks and losses.

        All parts must have the same layout.
        """
        lead = parts[0]
        pairs = list(zip(parts, map(list, rows), strict=True))
        masks = [p.pruning_mask[i] for p, i in pairs if p.pruning_mask is not None]
        joined = cls(
            lead.layout,
            lead._backbone,
            lead.recipe,
            torch.cat([p.values[i] for p, i in pairs]),
            torch.cat([p.moments[:, i] for p, i in pairs], dim=1),
            torch.cat(masks) if masks else None,
            torch.cat([p.memory[:, i] for p, i in pairs], dim=1),
        )
        joined.losses = torch.cat([p.losses[i] for p, i in pairs])
        return joined

    def apply_pruning_mask(self, mask: Tensor, pruned_values: Tensor | None = None) -> None:
        """Freeze the entries where `mask` [K, P] is False, at `pruned_values` [K, P] or, if None, at their current values."""
        self.pruning_mask = mask
        if pruned_values is not None:
            self.values.copy_(torch.where(mask, self.values, pruned_values))

    def named_tensors(self, rows: slice | Sequence[int], noise_seed: int | None = None) -> dict[str, Tensor]:
        """Returns the parameters of these rows by name, for one pass. Gradients of the tensors reach `leaf.grad`.

        Shapes, with K the number of rows: [K, ...] for matrices, [K, 1, N] for vectors. `noise_seed`: as in
        `StepHyperparameters`; None in evaluation.
        """
        if self.private_weights:
            return self.private_weights.compute(noise_seed)
        leaf = self.leaf if rows == slice(None) else self.leaf[rows]
        entries = self.layout.entries
        parts = leaf.split([e.size for e in entries], dim=1)
        return {e.name: part.view(e.stacked(len(leaf))) for e, part in zip(entries, parts, strict=True)}

    def finish_backward(self) -> None:
        """Complete the backward pass of methods that compute backbone weights from trained parts. Call it after each pass.

        The backbone holds the computed weights detached; their gradients are passed on to the parts, in `leaf.grad`.
        """
        if self.private_weights:
            self.private_weights.backward()

    def update_buffer(self, name: str, value: Tensor) -> None:
        """Set a parameter that gets no gradient (running statistics) to `value` [K, ...] at the end of this step."""
        self._updated_buffers[name] = value.detach()

    def step(self, hyper: StepHyperparameters) -> None:
        """Take one AdamW step of every trial with the gradients in `leaf.grad`, then clear them.

        Order: gradients of pruned entries are zeroed; each trial's gradient is clipped by its norm (before that, if the method
        says `clips_before_mask`); if the method has a `gradient_share` below 1, a random part of it is zeroed; AdamW updates the
        values; parameters given to `update_buffer` are set; the method's `after_step` is called if it keeps tensors between
        steps.
        """
        grads = self.leaf.grad
        assert grads is not None
        clips_first = self.layout.method.clips_before_mask
        if self.pruning_mask is not None and not clips_first:
            grads.mul_(self.pruning_mask)
        grads.mul_((hyper.max_grad_norm / (grads.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0))
        if self.pruning_mask is not None and clips_first:
            grads.mul_(self.pruning_mask)
        if self.private_weights:
            self.private_weights.mask_gradients(grads, hyper.noise_seed)
        for group in self.layout.param_groups:
            lr = hyper.lr if group.lr is None else group.lr * hyper.lr_scale
            if group.lr_factor != 1:
                lr = lr * group.lr_factor
            if self.private_weights:
                self._fused_adamw(group, grads, lr, hyper)
            else:
                self._stacked_adamw(group, grads, lr, hyper)
        self._after_step(grads, hyper)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Clear the gradients and the pending buffer updates."""
        self._updated_buffers.clear()
        if self.private_weights:
            self.private_weights.zero_grad()
        else:
            self.leaf.grad = None

    def _after_step(self, grads: Tensor, hyper: StepHyperparameters) -> None:
        """Set the parameters given to `update_buffer`, and call the method's `after_step` if it keeps tensors between steps."""
        for name, value in self._updated_buffers.items():
            e = self.layout.by_name[name]
            self.values[:, e.start : e.stop] = value.reshape(len(self.values), -1)
        if not self.layout.method.memories:
            return
        K = len(self.values)
        by_name = {}
        for e in self.layout.entries:
            part, shape = slice(e.start, e.stop), e.stacked(K)
            memory = self.memory[:, :, part].unflatten(-1, shape[1:])
            by_name[e.name] = StepValues(
                value=self.values[:, part].view(shape), grad=grads[:, part].view(shape), memory=memory
            )
        self.layout.method.after_step(by_name, hyper.step[:, 0], hyper.total_steps[:, 0])

    def _stacked_adamw(self, group: ParamGroup, grads: Tensor, lr: Tensor, hyper: StepHyperparameters) -> None:
        """Update the columns of one group for all trials with AdamW. `lr` [K, 1]: each trial's rate in this step."""
        r = self.recipe
        step_size, correction = -lr / (1 - r.beta1**hyper.step), (1 - r.beta2**hyper.step).sqrt()
        decay = 1 - lr * hyper.weight_decay
        for part in _chunks(group):
            grad, value = grads[:, part], self.values[:, part]
            first, second = self.moments[0][:, part], self.moments[1][:, part]
            first.lerp_(grad, 1 - r.beta1)
            second.mul_(r.beta2).addcmul_(grad, grad, value=1 - r.beta2)
            if group.decayed:
                value.mul_(decay)
            value.addcdiv_(first * step_size, (second.sqrt() / correction).add_(r.eps))

    def _fused_adamw(self, group: ParamGroup, grads: Tensor, lr: Tensor, hyper: StepHyperparameters) -> None:
        """Do the update of `_stacked_adamw` for a single trial with torch's fused kernel.

        That is several times faster if the trial trains all weights of its backbone.
        """
        part, r = slice(group.start, group.stop), self.recipe
        value = self.values[0, part].detach()
        value.grad = grads[0, part]
        decay = float(hyper.weight_decay) if group.decayed else 0.0
        if decay and self.pruning_mask is not None:  # the kernel would decay pruned entries, too
            value.addcmul_(value, self.pruning_mask[0, part], value=-float(lr) * decay)
            decay = 0.0
        adam = torch.optim.AdamW([value], float(lr), (r.beta1, r.beta2), r.eps, decay, fused=True)
        adam.state[value] = {
            "step": hyper.step.flatten()[0] - 1,
            "exp_avg": self.moments[0, 0, part],
            "exp_avg_sq": self.moments[1, 0, part],
        }
        adam.step()


def _chunks(group: ParamGroup) -> Iterator[slice]:
    for start in range(group.start, group.stop, CHUNK):
        yield slice(start, min(start + CHUNK, group.stop))
