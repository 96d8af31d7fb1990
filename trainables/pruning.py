"""Masks drawn once before the first step (SparseAdapter): a scoring pass over training examples, then an exact cut.

The pass runs in evaluation mode, in fp32, on the trial's own rows; its gradients are cleared before training begins.
Source: He et al. 2022 and their released code, with the exact count and tie-breaking by position of `methods/sparse_adapter.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainables.backbone import Backbone
from trainables.group import Group
from trainables.layout import Entry
from trainables.methods.sparse_adapter import SparseAdapter, exact_share
from trainables.packing import pack
from trainables.running import RunningPass, Segment, losses_of
from trainables.seeds import derive, permutation
from trainables.slot import Slot

EXAMPLES = 320


def mask_for(slot: Slot, group: Group, backbone: Backbone) -> Tensor:
    """What a group that holds this trial alone keeps: [1, P] of ones, and zeros for the pruned weights."""
    method = slot.method
    assert isinstance(method, SparseAdapter)
    entries = prunable(group)
    scores = _scores(method.score, slot, group, backbone, entries)
    sizes = [e.stop - e.start for e in entries]
    if method.score == "er":
        keep = torch.cat([_highest(z, exact_share(method.sparsity, len(z))) for z in scores.split(sizes)])
    else:
        keep = _highest(scores, exact_share(method.sparsity, len(scores)))
    mask = torch.ones(1, group.layout.size)
    for e, part in zip(entries, keep.split(sizes), strict=True):
        mask[0, e.start : e.stop] = part
    return mask.to(backbone.device)


def prunable(group: Group) -> list[Entry]:
    """The method's own matrices."""
    return [e for e in group.layout.entries if e.decayed and not e.name.startswith("head.")]


def _highest(scores: Tensor, removed: int) -> Tensor:
    """1 for all but the `removed` lowest scores; of equal scores the earlier is removed first."""
    keep = torch.ones_like(scores)
    keep[torch.sort(scores, stable=True).indices[:removed]] = 0
    return keep


def _scores(kind: str, slot: Slot, group: Group, backbone: Backbone, entries: list[Entry]) -> Tensor:
    """One score per weight, all matrices in a row, on the CPU."""
    weights = _columns(group.values, entries).cpu()
    if kind in ("random", "er"):
        generator = torch.Generator().manual_seed(derive(slot.trial.seed, "mask"))
        return torch.rand(len(weights), generator=generator)
    if kind == "magnitude":
        return weights.abs()
    if kind == "snip":
        return (weights * _gradient(slot, group, backbone, entries)).abs()
    return weights * _hessian_gradient(slot, group, backbone, entries)


def _gradient(slot: Slot, group: Group, backbone: Backbone, entries: list[Entry]) -> Tensor:
    """Sum over batches of the gradient of the mean training loss."""
    total = torch.zeros(sum(e.stop - e.start for e in entries), dtype=group.values.dtype)
    for loss in _losses(slot, group, backbone, slot.trial.batch_size):
        total += _columns(torch.autograd.grad(loss, group.leaf)[0], entries).cpu()
    return total


def _hessian_gradient(slot: Slot, group: Group, backbone: Backbone, entries: list[Entry]) -> Tensor:
    """H g: the gradient first, then the derivative of its product with itself held fixed, in half batches as released."""
    size = max(1, slot.trial.batch_size // 2)
    gradient = _gradient(slot, group, backbone, entries).to(backbone.device)
    total = torch.zeros(len(gradient), dtype=gradient.dtype)
    for loss in _losses(slot, group, backbone, size, twice=True):
        again = _columns(torch.autograd.grad(loss, group.leaf, create_graph=True)[0], entries)
        total += _columns(torch.autograd.grad(again @ gradient, group.leaf)[0], entries).cpu()
    return total


def _losses(slot: Slot, group: Group, backbone: Backbone, size: int, twice: bool = False) -> Iterator[Tensor]:
    split = slot.data.train
    chosen = permutation(len(split), slot.trial.seed, "scoring")[:EXAMPLES]
    for start in range(0, len(chosen), size):
        rows = pack([(split, chosen[start : start + size])], backbone.shape.heads, backbone.device)
        segment = Segment(group, 0, 1)
        logits = RunningPass(backbone, [segment], rows, None, twice_differentiable=twice).logits()[0]
        yield losses_of(logits, rows, segment, slot.data.task.regression).sum()


def _columns(rows: Tensor, entries: list[Entry]) -> Tensor:
    """The numbers of these entries from the only row of [1, P]."""
    return torch.cat([rows[0, e.start : e.stop] for e in entries])
