"""The weights of an encoder that one trial has for itself: views of the trial's row, or computed from it for each pass.

Legend: P parameters of the trial.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import random_bits
from trainables.methods.backbone_weights import BACKBONE, WeightMethod
from trainables.methods.context import Values
from trainables.seeds import derive
from trainables.training.parameter_layout import ParameterLayout

# Entries whose gradients are thinned at a time.
CHUNK = 1 << 22


class PrivateWeights:
    """`values` [1, P] and the gradients in `leaf.grad` [1, P] stay where they are; the encoder is made to use them."""

    def __init__(self, layout: ParameterLayout, backbone: Backbone, values: Tensor, leaf: Tensor):
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

    def open(self, noise: int | None) -> dict[str, Tensor]:
        """Compute the weights that are computed; returns their parts' tensors, and the head's.

        `noise`: the seed of what this training step draws, None in evaluation.
        """
        self._made = []
        if not self._computed:
            return self._head
        parts = self._parts()
        for name, (parameter, frozen, names) in self._computed.items():
            values = Values({part: parts[f"{BACKBONE}.{name}.{part}"] for part in names})
            drawn = None if noise is None else self._noise(values, noise, name)
            weight = self._method.effective(frozen, values, drawn).view(frozen.shape)
            parameter.data = weight.detach()
            self._made.append((parameter, weight))
        return {**parts, **self._head}

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

    def thin(self, grads: Tensor, noise: int) -> None:
        """Let the method's share of the gradients [1, P] through, drawn from this seed and divided by the share."""
        share = self._method.gradient_share
        if share == 1:
            return
        for start in range(0, grads.shape[1], CHUNK):
            part = grads[0, start : start + CHUNK]
            bits = torch.as_tensor(random_bits(len(part), derive(noise, start), grads.device))
            part.mul_((bits < round(share * 65536) - 32768) / share)

    @torch.no_grad()
    def settle(self) -> None:
        """Give the parts of computed weights what the method makes of them after its first phase."""
        parts = self._parts()
        for name, (_, _, names) in self._computed.items():
            values = Values({part: parts[f"{BACKBONE}.{name}.{part}"] for part in names})
            for part, value in self._method.settled(values).items():
                values[part].copy_(value)

    def _parts(self) -> dict[str, Tensor]:
        split = self._leaf.split([e.size for e in self._entries], dim=1)
        return {e.name: part.view(e.stacked(1)) for e, part in zip(self._entries, split, strict=True)}

    def _noise(self, values: Values, seed: int, name: str) -> Values:
        """Sixteen random bits for each entry of the noisy parts, as the middle of their interval: never 0 nor 1."""

        def uniform(part: str) -> Tensor:
            like = values[part]
            bits = torch.as_tensor(random_bits(like.numel(), derive(seed, name, part), like.device))
            return bits.to(like.dtype).add_(32768.5).div_(65536).view(like.shape)

        return Values({part: uniform(part) for part in self._method.noisy if part in values})
