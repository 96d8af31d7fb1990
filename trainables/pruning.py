"""Masks drawn once before the first step (SparseAdapter): a scoring pass over training examples, then an exact cut.

The pass runs in evaluation mode, in fp32, on the trial's own rows; its gradients are cleared before training begins.
Source: He et al. 2022 and their released code, with the exact count and tie-breaking by position of `methods/sparse_adapter.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainables.backbone import Backbone
from trainables.group import Entry, Group
from trainables.methods.sparse_adapter import SparseAdapter, exact_share
from trainables.packing import pack
from trainables.running import RunningPass, Segment, losses_of
from trainables.seeds import derive, permutation
from trainables.slot import Slot

EXAMPLES = 320


def masks_for(slot: Slot, group: Group, backbone: Backbone) -> dict[str, Tensor]:
    """One mask [1, ...] of zeros and ones per prunable matrix of a group that holds this trial alone."""
    method = slot.method
    assert isinstance(method, SparseAdapter)
    entries = [e for e in group.layout.entries if e.decayed and not e.name.startswith(("head.", "norm."))]
    scores = _scores(method.score, slot, group, backbone, entries)
    sizes = [e.stop - e.start for e in entries]
    if method.score == "er":
        keep = torch.cat([_highest(z, exact_share(method.sparsity, len(z))) for z in scores.split(sizes)])
    else:
        keep = _highest(scores, exact_share(method.sparsity, len(scores)))
    return {e.name: m.view(1, *e.shape).to(backbone.device) for e, m in zip(entries, keep.split(sizes), strict=True)}


def _highest(scores: Tensor, removed: int) -> Tensor:
    """1 for all but the `removed` lowest scores; of equal scores the earlier is removed first."""
    keep = torch.ones_like(scores)
    keep[torch.sort(scores, stable=True).indices[:removed]] = 0
    return keep


def _scores(kind: str, slot: Slot, group: Group, backbone: Backbone, entries: list[Entry]) -> Tensor:
    """One score per weight, all matrices in a row, on the CPU."""
    weights = torch.cat([group.values[0, e.start : e.stop] for e in entries]).cpu()
    if kind in ("random", "er"):
        generator = torch.Generator().manual_seed(derive(slot.trial.seed, "mask"))
        return torch.rand(len(weights), generator=generator)
    if kind == "magnitude":
        return weights.abs()
    leaves = [group.leaves[e.name] for e in entries]
    if kind == "snip":
        return (weights * _gradient(slot, group, backbone, leaves)).abs()
    return weights * _hessian_gradient(slot, group, backbone, leaves)


def _gradient(slot: Slot, group: Group, backbone: Backbone, leaves: list[Tensor]) -> Tensor:
    """Sum over batches of the gradient of the mean training loss."""
    total = torch.zeros(sum(leaf.numel() for leaf in leaves), dtype=leaves[0].dtype)
    for loss in _losses(slot, group, backbone, slot.trial.batch_size):
        total += _flat(torch.autograd.grad(loss, leaves))
    return total


def _hessian_gradient(slot: Slot, group: Group, backbone: Backbone, leaves: list[Tensor]) -> Tensor:
    """H g: the gradient first, then the derivative of its product with itself held fixed, in half batches as released."""
    size = max(1, slot.trial.batch_size // 2)
    gradient = _gradient(slot, group, backbone, leaves).to(backbone.device)
    total = torch.zeros(len(gradient), dtype=gradient.dtype)
    for loss in _losses(slot, group, backbone, size, twice=True):
        again = _flat(torch.autograd.grad(loss, leaves, create_graph=True), keep_graph=True)
        total += _flat(torch.autograd.grad(again @ gradient, leaves))
    return total


def _losses(slot: Slot, group: Group, backbone: Backbone, size: int, twice: bool = False) -> Iterator[Tensor]:
    split = slot.data.train
    chosen = permutation(len(split), slot.trial.seed, "scoring")[:EXAMPLES]
    for start in range(0, len(chosen), size):
        rows = pack([(split, chosen[start : start + size])], backbone.device)
        segment = Segment(group, 0, 1)
        logits = RunningPass(backbone, [segment], rows, None, twice_differentiable=twice).logits()[0]
        yield losses_of(logits, rows, segment, slot.data.task.regression).sum()


def _flat(tensors: tuple[Tensor, ...], keep_graph: bool = False) -> Tensor:
    flat = torch.cat([t.reshape(-1) for t in tensors])
    return flat if keep_graph else flat.detach().cpu()
