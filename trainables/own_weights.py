"""The weights of an encoder that one trial has for itself: views of the trial's row, or computed from it for each pass.

Legend: P parameters of the trial.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.backbone import Backbone
from trainables.layout import BACKBONE, Layout
from trainables.methods.contract import Values
from trainables.methods.weights import WeightMethod


class OwnWeights:
    """`values` [1, P] and the gradients in `leaf.grad` [1, P] stay where they are; the encoder is made to use them."""

    def __init__(self, layout: Layout, backbone: Backbone, values: Tensor, leaf: Tensor):
        assert len(values) == 1, "a trial that trains the backbone has one of its own"
        assert isinstance(layout.method, WeightMethod)
        leaf.grad = torch.zeros_like(values)
        self._method, self._leaf = layout.method, leaf
        self._head: dict[str, Tensor] = {}
        # Weights that are computed: the encoder's tensor, what it was before training, and its parts' names.
        self._computed: dict[str, tuple[nn.Parameter, Tensor, list[str]]] = {}
        self._made: list[tuple[nn.Parameter, Tensor]] = []
        parameters = dict(backbone.module.named_parameters())
        self._entries = layout.entries
        for e in layout.entries:
            value, grad = (t[0, e.start : e.stop] for t in (values, leaf.grad))
            if not e.name.startswith(BACKBONE + "."):
                head = value.view(e.stacked(1)).detach().requires_grad_()
                head.grad = grad.view(e.stacked(1))
                self._head[e.name] = head
            elif (name := e.name.removeprefix(BACKBONE + ".")) in parameters:
                parameter = parameters[name]
                parameter.data, parameter.requires_grad = value.view(e.shape), True
                parameter.grad = grad.view(e.shape)
            else:
                name, _, part = name.rpartition(".")
                parameter = parameters[name]
                if name not in self._computed:
                    self._computed[name] = (parameter, parameter.detach().clone(), [])
                    parameter.requires_grad_()
                self._computed[name][2].append(part)

    def open(self) -> dict[str, Tensor]:
        """Compute the weights that are computed; returns the head's tensors."""
        self._made = []
        if self._computed:
            split = self._leaf.split([e.size for e in self._entries], dim=1)
            parts = {e.name: part.view(e.stacked(1)) for e, part in zip(self._entries, split, strict=True)}
        for name, (parameter, frozen, names) in self._computed.items():
            values = Values({part: parts[f"{BACKBONE}.{name}.{part}"] for part in names})
            weight = self._method.effective(frozen, values).view(frozen.shape)
            parameter.data = weight.detach()
            self._made.append((parameter, weight))
        return self._head

    def close(self) -> None:
        """After the backward pass: hand the gradients of the computed weights on to their parts."""
        if self._made:
            torch.autograd.backward([weight for _, weight in self._made], [p.grad for p, _ in self._made])
            for parameter, _ in self._made:
                parameter.grad = None
            self._made = []

    def forget_gradients(self) -> None:
        assert self._leaf.grad is not None
        self._leaf.grad.zero_()
        for parameter, _, _ in self._computed.values():
            parameter.grad = None
        self._made = []
