"""Masks drawn before the first step, or between two phases: a score per entry, then an exact cut.

    random        z ~ U(0, 1)
    magnitude     z = |W|
    snip          z = |W * g|,   g = dL/dW summed over batches
    grasp         z = W * (H g), H the Hessian
    fisher        z = sum over single examples of (dL/dW)^2, in evaluation mode
    batch_fisher  z = sum over batches of (dL/dW)^2, each parameter's gradient clipped first, with dropout
    change        z = |W - W before training|

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


def mask_for(state: TrialState, parameters: StackedParameters, backbone: Backbone) -> Tensor:
    """The pruning mask [1, P] of a trial that is alone in its stack: False for pruned entries, True for all others."""
    mask = state.method.mask
    assert mask is not None
    entries = prunable_parameters(parameters.layout)
    scores = _scores(mask.score, state, parameters, backbone, entries)
    sizes = [e.size for e in entries]
    parts = scores.split(sizes) if mask.each else [scores]
    kept = torch.cat([_highest(z, mask.num_kept(len(z))) for z in parts])
    pruning_mask = torch.ones(1, parameters.layout.size, dtype=torch.bool)
    for e, part in zip(entries, kept.split(sizes), strict=True):
        pruning_mask[0, e.start : e.stop] = part
    return pruning_mask.to(backbone.device)


@torch.no_grad()
def start_second_phase(state: TrialState, parameters: StackedParameters, backbone: Backbone) -> None:
    """Draw the mask, reset pruned entries (with `rewinds` all entries) to their initial values, and set the moments to zero."""
    assert parameters.private_weights
    assert isinstance(state.method, WeightMethod)
    parameters.private_weights.finalize_phase_one()
    pruning_mask = mask_for(state, parameters, backbone)
    initial = state.best.to(backbone.device)[None]
    parameters.apply_pruning_mask(pruning_mask, pruned_values=initial)
    if state.method.rewinds:
        parameters.values.copy_(initial)
    parameters.moments.zero_()
    state.best = parameters.values[0].clone()


def prunable_parameters(layout: ParameterLayout) -> list[ParameterSlice]:
    """The parameters whose entries the method's mask ranks."""
    return [e for e in layout.entries if layout.method.is_prunable(e.name, e.parameter)]


def _highest(scores: Tensor, number: int) -> Tensor:
    """True for the `number` highest scores; of equal scores the later is taken first."""
    removed = len(scores) - number
    if not removed:
        return torch.ones_like(scores, dtype=torch.bool)
    bound = scores.kthvalue(removed).values
    kept = scores > bound
    tied = (scores == bound).nonzero()[:, 0]
    kept[tied[len(tied) - (number - int(kept.sum())) :]] = True
    return kept


def _scores(
    kind: MaskScore, state: TrialState, parameters: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]
) -> Tensor:
    """The scores of all entries of the prunable parameters, concatenated, on the CPU."""
    weights = _columns(parameters.values, entries).cpu()
    if kind == "random":
        generator = torch.Generator().manual_seed(derive(state.trial.seed, "mask"))
        return torch.rand(len(weights), generator=generator)
    if kind == "magnitude":
        return weights.abs()
    if kind == "change":
        return (weights - _columns(state.best[None], entries).cpu()).abs()
    if kind in ("fisher", "batch_fisher"):
        return _fisher(state, parameters, backbone, entries, single=kind == "fisher")
    if kind == "snip":
        return (weights * _gradient(state, parameters, backbone, entries)).abs()
    return weights * _hessian_gradient(state, parameters, backbone, entries)


def _fisher(
    state: TrialState, parameters: StackedParameters, backbone: Backbone, entries: list[ParameterSlice], single: bool
) -> Tensor:
    """Sum of squared gradients: of single examples, or of batches as in training."""
    assert parameters.private_weights, "only private weights are ranked by Fisher information"
    total = torch.zeros_like(parameters.values)
    for loss in _losses(state, parameters, backbone, 1 if single else state.trial.batch_size, dropout=not single):
        loss.backward()
        parameters.finish_backward()
        gradient = parameters.leaf.grad
        assert gradient is not None
        if not single:
            for e in entries:
                part = gradient[0, e.start : e.stop]
                part.mul_((state.trial.recipe.clip / (part.norm() + 1e-6)).clamp(max=1.0))
        total.addcmul_(gradient, gradient)
        parameters.zero_grad()
    return _columns(total, entries).cpu()


def _gradient(
    state: TrialState, parameters: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]
) -> Tensor:
    """Sum over batches of the gradient of the mean training loss."""
    total = torch.zeros(sum(e.size for e in entries), dtype=parameters.values.dtype)
    for loss in _losses(state, parameters, backbone, state.trial.batch_size):
        total += _columns(torch.autograd.grad(loss, parameters.leaf)[0], entries).cpu()
    return total


def _hessian_gradient(
    state: TrialState, parameters: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]
) -> Tensor:
    """H g: the gradient first, then the derivative of its product with itself held fixed, in half batches as released."""
    size = max(1, state.trial.batch_size // 2)
    gradient = _gradient(state, parameters, backbone, entries).to(backbone.device)
    total = torch.zeros(len(gradient), dtype=gradient.dtype)
    for loss in _losses(state, parameters, backbone, size, twice=True):
        again = _columns(torch.autograd.grad(loss, parameters.leaf, create_graph=True)[0], entries)
        total += _columns(torch.autograd.grad(again @ gradient, parameters.leaf)[0], entries).cpu()
    return total


def _losses(
    state: TrialState,
    parameters: StackedParameters,
    backbone: Backbone,
    size: int,
    twice: bool = False,
    dropout: bool = False,
) -> Iterator[Tensor]:
    """The mean loss of each batch of the examples from which the score is computed."""
    split = state.data.train
    assert state.method.mask is not None
    chosen = permutation(len(split), state.trial.seed, "scoring")[: state.method.mask.examples or None]
    for number, start in enumerate(range(0, len(chosen), size)):
        rows = pack([(split, chosen[start : start + size])], backbone.shape.heads, backbone.device)
        segment = Segment(parameters, 0, 1)
        # Steps below zero, so that no training step has the same stream.
        masks = dropout_of([state], [-1 - number], rows, backbone) if dropout else None
        logits = ForwardPass(backbone, [segment], rows, masks, twice_differentiable=twice).logits()[0]
        yield losses_of(logits, rows, segment, state.data.task.form).sum()


def _columns(rows: Tensor, entries: list[ParameterSlice]) -> Tensor:
    """The columns of these parameters from the single row of [1, P], concatenated."""
    return torch.cat([rows[0, e.start : e.stop] for e in entries])
