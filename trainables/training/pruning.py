"""Pruning masks, made before the first step or between two phases: each entry gets a score z, the highest scores stay trainable.

W is an entry's value, L the training loss:

    random        z ~ U(0, 1)
    magnitude     z = |W|
    snip          z = |W * g|,   g = dL/dW summed over batches
    grasp         z = W * (H g), H the Hessian
    fisher        z = sum over single examples of (dL/dW)^2, in evaluation mode
    batch_fisher  z = sum over batches of (dL/dW)^2, each parameter's gradient clipped first, with dropout
    change        z = |W - W before training|

The gradients are of the trial's training split; examples and dropout are drawn from its seed, and gradients are cleared before
training begins. Sources: He et al. 2022 and their released code; Sung et al. 2021 for "fisher"; the released code of Xu et al.
2021 for "batch_fisher". Legend: P parameters of the trial.
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
    """Returns the pruning mask [1, P] of a trial: False for pruned entries, True for all others.

    `parameters` must hold this trial only.
    """
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
    """Begin the second of a trial's two phases: make its pruning mask, reset values and set Adam's moments to zero.

    Pruned entries are reset to their initial values; all entries are, if the method's `rewinds` is True.
    """
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
    """Returns the parameters whose entries the method's mask ranks (`Method.is_prunable`)."""
    return [e for e in layout.entries if layout.method.is_prunable(e.name, e.parameter)]


def _highest(scores: Tensor, number: int) -> Tensor:
    """Returns a mask that is True for exactly the `number` highest scores; of equal scores those at later positions win."""
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
    """Returns the scores of all entries of these parameters, concatenated, on the CPU."""
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
    """Returns the sum of squared gradients: of single examples, or else of batches, with clipping and dropout as in training."""
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
    """Returns the gradient g: the sum over batches of the gradient of the batch's mean loss, on the CPU."""
    total = torch.zeros(sum(e.size for e in entries), dtype=parameters.values.dtype)
    for loss in _losses(state, parameters, backbone, state.trial.batch_size):
        total += _columns(torch.autograd.grad(loss, parameters.leaf)[0], entries).cpu()
    return total


def _hessian_gradient(
    state: TrialState, parameters: StackedParameters, backbone: Backbone, entries: list[ParameterSlice]
) -> Tensor:
    """Returns H g, the product of the Hessian H with the gradient g.

    g is computed first. H g is then the sum over batches of the derivative of (gradient of the batch) . g with g constant. As
    in the released code, these batches have half the trial's batch size.
    """
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
    """Yield the mean loss of each batch of `size` examples, among those from which the score is computed (`Mask.examples`).

    `twice`: the loss can be differentiated twice.
    """
    split = state.data.train
    assert state.method.mask is not None
    chosen = permutation(len(split), state.trial.seed, "scoring")[: state.method.mask.examples or None]
    for number, start in enumerate(range(0, len(chosen), size)):
        batch = (split, chosen[start : start + size])
        rows = pack([batch], backbone.indexed_heads, backbone.device, reads_last=backbone.shape.reads_last)
        segment = Segment(parameters, 0, 1)
        # Negative step numbers, so that training steps use other random numbers.
        masks = dropout_of([state], [-1 - number], rows, backbone) if dropout else None
        logits = ForwardPass(backbone, [segment], rows, masks, twice_differentiable=twice).logits()[0]
        yield losses_of(logits, rows, segment, state.data.task.form).sum()


def _columns(rows: Tensor, entries: list[ParameterSlice]) -> Tensor:
    """Returns the columns of these parameters from `rows` [1, P], concatenated to one vector."""
    return torch.cat([rows[0, e.start : e.stop] for e in entries])
