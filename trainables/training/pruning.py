"""Masks drawn before the first step, or between two phases: a score per entry, then an exact cut.

    random        z ~ U(0, 1)
    magnitude     z = |W|
    snip          z = |W * g|,   g = dL/dW summed over batches
    grasp         z = W * (H g), H the Hessian
    fisher        z = sum over single examples of (dL/dW)^2, in evaluation mode
    batch_fisher  z = sum over batches of (dL/dW)^2, each parameter's gradient clipped first, with dropout
    change        z = |W - its start|

Passes run in fp32 on the trial's own training part, examples and dropout drawn from its seed; gradients are cleared before
training begins. Source: He et al. 2022 and their released code; Sung et al. 2021 for "fisher", Xu et al. 2021's released code
for "batch_fisher".
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import pack
from trainables.methods.backbone_weights import WeightMethod
from trainables.methods.spec import MaskScore
from trainables.seeds import derive, permutation
from trainables.training.forward_pass import ForwardPass
from trainables.training.losses import losses_of
from trainables.training.parameter_layout import ParameterLayout, ParameterSlice
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters
from trainables.training.stacked_trials import dropout_of
from trainables.training.trial_state import TrialState


def mask_for(slot: TrialState, group: StackedParameters, backbone: Backbone) -> Tensor:
    """What a group that holds this trial alone keeps: [1, P] of True, and False for what loses."""
    mask = slot.method.mask
    assert mask is not None
    entries = contenders(group.layout)
    scores = _scores(mask.score, slot, group, backbone, entries)
    sizes = [e.size for e in entries]
    parts = scores.split(sizes) if mask.each else [scores]
    best = torch.cat([_highest(z, mask.kept(len(z))) for z in parts])
    keep = torch.ones(1, group.layout.size, dtype=torch.bool)
    for e, part in zip(entries, best.split(sizes), strict=True):
        keep[0, e.start : e.stop] = part
    return keep.to(backbone.device)


@torch.no_grad()
def start_second_phase(slot: TrialState, group: StackedParameters, backbone: Backbone) -> None:
    """Begin the second phase: draw the mask, put back what has to be, forget the moments."""
    assert group.private_weights
    assert isinstance(slot.method, WeightMethod)
    group.private_weights.finalize_phase_one()
    keep = mask_for(slot, group, backbone)
    start = slot.best.to(backbone.device)[None]
    group.apply_pruning_mask(keep, pruned_values=start)
    if slot.method.rewinds:
        group.values.copy_(start)
    group.moments.zero_()
    slot.best = group.values[0].clone()


def contenders(layout: ParameterLayout) -> list[ParameterSlice]:
    """The parameters whose entries compete for a place in the method's mask."""
    return [e for e in layout.entries if layout.method.competes(e.name, e.parameter)]


def _highest(scores: Tensor, number: int) -> Tensor:
    """True for the `number` highest scores; of equal scores the later is taken first."""
    removed = len(scores) - number
    if not removed:
        return torch.ones_like(scores, dtype=torch.bool)
    bound = scores.kthvalue(removed).values
    keep = scores > bound
    tied = (scores == bound).nonzero()[:, 0]
    keep[tied[len(tied) - (number - int(keep.sum())) :]] = True
    return keep


def _scores(
    kind: MaskScore, slot: TrialState, group: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]
) -> Tensor:
    """One score per entry, all parameters in a row, on the CPU."""
    weights = _columns(group.values, entries).cpu()
    if kind == "random":
        generator = torch.Generator().manual_seed(derive(slot.trial.seed, "mask"))
        return torch.rand(len(weights), generator=generator)
    if kind == "magnitude":
        return weights.abs()
    if kind == "change":
        return (weights - _columns(slot.best[None], entries).cpu()).abs()
    if kind in ("fisher", "batch_fisher"):
        return _fisher(slot, group, backbone, entries, single=kind == "fisher")
    if kind == "snip":
        return (weights * _gradient(slot, group, backbone, entries)).abs()
    return weights * _hessian_gradient(slot, group, backbone, entries)


def _fisher(
    slot: TrialState, group: StackedParameters, backbone: Backbone, entries: list[ParameterSlice], single: bool
) -> Tensor:
    """Sum of squared gradients: of single examples, or of batches as trained on."""
    assert group.private_weights, "only private weights are ranked by it"
    total = torch.zeros_like(group.values)
    for loss in _losses(slot, group, backbone, 1 if single else slot.trial.batch_size, dropout=not single):
        loss.backward()
        group.finish_backward()
        gradient = group.leaf.grad
        assert gradient is not None
        if not single:
            for e in entries:
                part = gradient[0, e.start : e.stop]
                part.mul_((slot.trial.recipe.clip / (part.norm() + 1e-6)).clamp(max=1.0))
        total.addcmul_(gradient, gradient)
        group.zero_grad()
    return _columns(total, entries).cpu()


def _gradient(slot: TrialState, group: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]) -> Tensor:
    """Sum over batches of the gradient of the mean training loss."""
    total = torch.zeros(sum(e.size for e in entries), dtype=group.values.dtype)
    for loss in _losses(slot, group, backbone, slot.trial.batch_size):
        total += _columns(torch.autograd.grad(loss, group.leaf)[0], entries).cpu()
    return total


def _hessian_gradient(
    slot: TrialState, group: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]
) -> Tensor:
    """H g: the gradient first, then the derivative of its product with itself held fixed, in half batches as released."""
    size = max(1, slot.trial.batch_size // 2)
    gradient = _gradient(slot, group, backbone, entries).to(backbone.device)
    total = torch.zeros(len(gradient), dtype=gradient.dtype)
    for loss in _losses(slot, group, backbone, size, twice=True):
        again = _columns(torch.autograd.grad(loss, group.leaf, create_graph=True)[0], entries)
        total += _columns(torch.autograd.grad(again @ gradient, group.leaf)[0], entries).cpu()
    return total


def _losses(
    slot: TrialState,
    group: StackedParameters,
    backbone: Backbone,
    size: int,
    twice: bool = False,
    dropout: bool = False,
) -> Iterator[Tensor]:
    """The mean loss of each batch of the examples that the mask's score sees."""
    split = slot.data.train
    assert slot.method.mask is not None
    chosen = permutation(len(split), slot.trial.seed, "scoring")[: slot.method.mask.examples or None]
    for number, start in enumerate(range(0, len(chosen), size)):
        rows = pack([(split, chosen[start : start + size])], backbone.shape.heads, backbone.device)
        segment = Segment(group, 0, 1)
        # Steps below zero, so that no training step has the same stream.
        masks = dropout_of([slot], [-1 - number], rows, backbone) if dropout else None
        logits = ForwardPass(backbone, [segment], rows, masks, twice_differentiable=twice).logits()[0]
        yield losses_of(logits, rows, segment, slot.data.task.form).sum()


def _columns(rows: Tensor, entries: list[ParameterSlice]) -> Tensor:
    """The numbers of these entries from the only row of [1, P]."""
    return torch.cat([rows[0, e.start : e.stop] for e in entries])
