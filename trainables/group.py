"""Residents that share a method, its settings and a head: their parameters stacked as [G, ...], updated in one go.

Every trial owns one row of flat buffers [G, P] for values, gradients and Adam's moments; the tensors that formulas see are views
of them, made for each pass, so that the gradient arrives in one piece. Matrices come first and are decayed, biases,
LayerNorms and other vectors come last and are not.

Legend: G trials of the group, P parameters of one trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.language import Recipe
from trainables.backbone import Backbone
from trainables.methods.contract import Method, Parameter, Shape
from trainables.seeds import derive

HEAD_STD = 0.02
BACKBONE = "backbone."
# Columns of the flat buffers updated at a time: the dozen passes of Adam then run in the processor's cache.
CHUNK = 1 << 17


@dataclass(frozen=True)
class Entry:
    """One tensor of a trial: its name, shape without G, place in the row, and whether weight decay moves it."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    decayed: bool

    def stacked(self, G: int) -> tuple[int, ...]:
        """Shape in a group of G trials: [G, ...] for matrices, [G, 1, N] for vectors."""
        return (G, *self.shape) if len(self.shape) > 1 else (G, 1, *self.shape)


class Layout:
    """Where each tensor of a trial lies in its row of P numbers; `names` lists what is under each prefix.

    Names: "<layer>.<site>.<parameter>", "norm.<place>.weight|bias", "head.<name>", or "backbone.<name>" where it is trained.
    """

    def __init__(self, method: Method, backbone: Backbone, outputs: int):
        self.method, self.shape, self.outputs = method, backbone.shape, outputs
        declared = self._declare(method, backbone, outputs)
        declared.sort(key=lambda item: not _is_matrix(item[1]))
        self.entries: list[Entry] = []
        self.starts = dict(declared)
        place = 0
        for name, parameter in declared:
            size = math.prod(parameter.shape)
            self.entries.append(Entry(name, parameter.shape, place, place + size, _is_matrix(parameter)))
            place += size
        self.size = place
        self.names: dict[str, list[str]] = {}
        for e in self.entries:
            prefix, _, name = e.name.rpartition(".")
            self.names.setdefault(prefix, []).append(name)
        self.decayed = sum(e.stop - e.start for e in self.entries if e.decayed)

    @staticmethod
    def _declare(method: Method, backbone: Backbone, outputs: int) -> list[tuple[str, Parameter]]:
        shape, declared = backbone.shape, []
        if not method.shares_backbone:
            declared += [(BACKBONE + n, Parameter(shape=tuple(p.shape))) for n, p in backbone.module.named_parameters()]
        elif method.trains_layer_norms:
            for place in range(2 * shape.layers + 1):
                declared += [(f"norm.{place}.{kind}", Parameter(shape=(shape.width,))) for kind in ("weight", "bias")]
        for layer in range(shape.layers):
            for site in method.sites:
                declared += [(f"{layer}.{site}.{name}", p) for name, p in method.parameters(shape).items()]
        return declared + head_parameters(shape, outputs)

    def initial(self, seed: int, backbone: Backbone) -> Tensor:
        """A trial's row [P] before its first step: pretrained values where there are any, else drawn from its seed."""
        pretrained = (
            {BACKBONE + n: p for n, p in backbone.module.named_parameters()} if not self.method.shares_backbone else {}
        )
        for place, norm in enumerate(backbone.norms):
            pretrained |= {f"norm.{place}.weight": norm.weight, f"norm.{place}.bias": norm.bias}
        row = torch.zeros(self.size)
        for e in self.entries:
            value = pretrained[e.name].detach() if e.name in pretrained else _draw(self.starts[e.name], seed, e.name)
            row[e.start : e.stop] = value.reshape(-1).cpu()
        return row


def head_parameters(shape: Shape, outputs: int) -> list[tuple[str, Parameter]]:
    d = shape.width
    dense = (
        []
        if shape.pooler
        else [("head.dense", Parameter(shape=(d, d), std=HEAD_STD)), ("head.dense_bias", Parameter(shape=(d,)))]
    )
    return [
        *dense,
        ("head.out", Parameter(shape=(d, outputs), std=HEAD_STD)),
        ("head.out_bias", Parameter(shape=(outputs,))),
    ]


class Group:
    """G trials with one layout. Rows are in the order in which their trials joined.

    `keep` [G, P], where a method prunes: 0 for weights that are and stay zero, else 1. `losses` [G]: sums over the steps of
    each trial's epoch so far.
    """

    def __init__(
        self,
        layout: Layout,
        backbone: Backbone,
        recipe: Recipe,
        rows: Tensor,
        moments: Tensor | None = None,
        keep: Tensor | None = None,
    ):
        """`rows`: [G, P] values; `moments`: [2, G, P] of Adam, zeros when None. All moved to the backbone's device."""
        device = backbone.device
        self.layout, self.recipe, self._backbone = layout, recipe, backbone
        self.values = rows.to(device)
        self.moments = torch.zeros(2, *rows.shape, device=device) if moments is None else moments.to(device)
        self.keep = None if keep is None else keep.to(device)
        self.losses = torch.zeros(len(rows), device=device)
        self.leaf = self.values.detach().requires_grad_()
        if not layout.method.shares_backbone:
            self._lone = self._take_backbone()

    def _take_backbone(self) -> dict[str, Tensor]:
        """Let the encoder's own parameters be views of our row, and their gradients views of `leaf.grad`; returns the head."""
        assert len(self.values) == 1, "a trial that trains the backbone has one of its own"
        self.leaf.grad = torch.zeros_like(self.values)
        parameters = dict(self._backbone.module.named_parameters())
        head = {}
        for e in self.layout.entries:
            value, grad = (t[0, e.start : e.stop] for t in (self.values, self.leaf.grad))
            if e.name.startswith(BACKBONE):
                parameter = parameters[e.name.removeprefix(BACKBONE)]
                parameter.data = value.view(e.shape)
                parameter.requires_grad_()
                parameter.grad = grad.view(e.shape)
            else:
                head[e.name] = value.view(e.stacked(1)).detach().requires_grad_()
                head[e.name].grad = grad.view(e.stacked(1))
        return head

    @classmethod
    def of(cls, parts: list[Group], chosen: list[list[int]]) -> Group:
        """A group of the chosen rows of several groups of one layout, values, moments and masks kept."""
        lead = parts[0]
        rows = torch.cat([g.values[i] for g, i in zip(parts, chosen, strict=True)])
        moments = torch.cat([g.moments[:, i] for g, i in zip(parts, chosen, strict=True)], dim=1)
        keep = [g.keep[i] for g, i in zip(parts, chosen, strict=True) if g.keep is not None]
        group = cls(lead.layout, lead._backbone, lead.recipe, rows, moments, torch.cat(keep) if keep else None)
        group.losses = torch.cat([g.losses[i] for g, i in zip(parts, chosen, strict=True)])
        return group

    def prune(self, keep: Tensor) -> None:
        """From now on, what `keep` [G, P] has zeros for is zero."""
        self.keep = keep
        self.values.mul_(keep)

    def open(self, rows: slice) -> dict[str, Tensor]:
        """The tensors of some of the group's rows by name, [G, ...] for matrices and [G, 1, N] for vectors, for one pass."""
        if not self.layout.method.shares_backbone:
            return self._lone
        leaf = self.leaf if rows == slice(None) else self.leaf[rows]
        entries = self.layout.entries
        parts = leaf.split([e.stop - e.start for e in entries], dim=1)
        return {e.name: part.view(e.stacked(len(leaf))) for e, part in zip(entries, parts, strict=True)}

    def step(self, lr: Tensor, steps: Tensor, decay: Tensor, clip: Tensor) -> None:
        """One AdamW step with decoupled decay for every trial, each with its own lr, decay, clipping norm and step count.

        All arguments [G, 1]; `steps` counts this step, from 1. Consumes the gradients.
        """
        grads = self.leaf.grad
        assert grads is not None
        if self.keep is not None:
            grads.mul_(self.keep)
        scale = (clip / (grads.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        if self.layout.method.shares_backbone:
            self._stacked_step(grads, scale, lr, steps, decay)
        else:
            self._lone_step(grads.mul_(scale), lr, steps, decay)
        self.forget_gradients()

    def forget_gradients(self) -> None:
        if self.layout.method.shares_backbone:
            self.leaf.grad = None
        elif self.leaf.grad is not None:
            self.leaf.grad.zero_()

    def _stacked_step(self, grads: Tensor, scale: Tensor, lr: Tensor, steps: Tensor, decay: Tensor) -> None:
        r = self.recipe
        size, rate = -lr / (1 - r.beta1**steps), (1 - r.beta2**steps).sqrt()
        keep = 1 - lr * decay
        for part, decayed in self._chunks():
            grad, value = grads[:, part].mul_(scale), self.values[:, part]
            first, second = self.moments[0][:, part], self.moments[1][:, part]
            first.lerp_(grad, 1 - r.beta1)
            second.mul_(r.beta2).addcmul_(grad, grad, value=1 - r.beta2)
            if decayed:
                value.mul_(keep)
            value.addcdiv_(first * size, (second.sqrt() / rate).add_(r.eps))

    def _lone_step(self, grads: Tensor, lr: Tensor, steps: Tensor, decay: Tensor) -> None:
        """A whole backbone's worth of parameters: torch's fused kernel, several times faster there, on the same buffers."""
        edge = self.layout.decayed
        for part, rate in ((slice(0, edge), float(decay)), (slice(edge, None), 0.0)):
            value = self.values[0, part].detach()
            value.grad = grads[0, part]
            r = self.recipe
            adam = torch.optim.AdamW([value], float(lr), (r.beta1, r.beta2), r.eps, rate, fused=True)
            adam.state[value] = {
                "step": steps.flatten()[0] - 1,
                "exp_avg": self.moments[0, 0, part],
                "exp_avg_sq": self.moments[1, 0, part],
            }
            adam.step()

    def _chunks(self) -> Iterator[tuple[slice, bool]]:
        edge, end = self.layout.decayed, self.layout.size
        for start, stop, decayed in ((0, edge, True), (edge, end, False)):
            for a in range(start, stop, CHUNK):
                yield slice(a, min(a + CHUNK, stop)), decayed


def _is_matrix(parameter: Parameter) -> bool:
    return len(parameter.shape) > 1


def _draw(parameter: Parameter, seed: int, name: str) -> Tensor:
    """The start of one tensor, from a generator of its own: independent of every other tensor and of company."""
    generator = torch.Generator().manual_seed(derive(seed, "init", name))
    value = torch.zeros(parameter.shape)
    if parameter.std == "identity":
        return torch.eye(*parameter.shape)
    if parameter.std == "kaiming":
        bound = math.sqrt(6 / parameter.shape[0])
        return value.uniform_(-bound, bound, generator=generator)
    if parameter.std:
        torch.nn.init.trunc_normal_(
            value, std=parameter.std, a=-2 * parameter.std, b=2 * parameter.std, generator=generator
        )
    return value
