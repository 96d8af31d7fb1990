"""Backbone weights that one trial trains. They are views of the trial's flat parameters, or computed from these in each pass.

Such a backbone belongs to a single trial. A computed weight is one that the method combines from several parts, for example
a pretrained tensor and a trained mask. Legend: P parameters of the trial.
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

# Gradient entries that `mask_gradients` masks at a time.
CHUNK = 1 << 22


class PrivateWeights:
    """Makes the backbone's parameters use `values` [1, P] and `leaf.grad` [1, P] as their storage.

    A computed weight has no storage there, only its parts have; `compute` assigns it to the backbone in each pass.
    """

    def __init__(self, layout: ParameterLayout, backbone: Backbone, values: Tensor, leaf: Tensor):
        assert len(values) == 1, "a trial that trains the backbone does not share it"
        assert isinstance(layout.method, WeightMethod)
        leaf.grad = torch.zeros_like(values)
        self._method, self._leaf = layout.method, leaf
        self._head: dict[str, Tensor] = {}
        # Computed weights by the name of the backbone's parameter: this parameter, its pretrained value, the names of the parts.
        self._computed: dict[str, tuple[nn.Parameter, Tensor, list[str]]] = {}
        # Computed weights of the current pass: the backbone's parameter, and the weight with its autograd graph.
        self._with_graph: list[tuple[nn.Parameter, Tensor]] = []
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

    def compute(self, noise_seed: int | None) -> dict[str, Tensor]:
        """Compute the weights that the method combines from parts, and assign them to the backbone for one pass.

        Returns the tensors of their parts and of the head by name; without computed weights, those of the head alone.
        `noise_seed`: seed of this step's random numbers, None in evaluation.
        """
        self._with_graph = []
        if not self._computed:
            return self._head
        parts = self._parts()
        for name, (parameter, frozen, names) in self._computed.items():
            values = Values({part: parts[f"{BACKBONE}.{name}.{part}"] for part in names})
            noise = None if noise_seed is None else self._noise(values, noise_seed, name)
            weight = self._method.effective(frozen, values, noise).view(frozen.shape)
            parameter.data = weight.detach()
            self._with_graph.append((parameter, weight))
        return {**parts, **self._head}

    def backward(self) -> None:
        """Propagate the gradients of the computed weights to their parts in `leaf.grad`. Call it after each backward pass."""
        if self._with_graph:
            torch.autograd.backward([weight for _, weight in self._with_graph], [p.grad for p, _ in self._with_graph])
            for parameter, _ in self._with_graph:
                parameter.grad = None
            self._with_graph = []

    def zero_grad(self) -> None:
        """Clear all gradients and the computed weights of an unfinished pass."""
        assert self._leaf.grad is not None
        self._leaf.grad.zero_()
        for parameter, _, _ in self._computed.values():
            parameter.grad = None
        self._with_graph = []

    def mask_gradients(self, grads: Tensor, noise_seed: int) -> None:
        """Zero the gradients [1, P] in place except for a random fraction `gradient_share`, which is divided by that fraction."""
        share = self._method.gradient_share
        if share == 1:
            return
        for start in range(0, grads.shape[1], CHUNK):
            part = grads[0, start : start + CHUNK]
            bits = torch.as_tensor(random_bits(len(part), derive(noise_seed, start), grads.device))
            part.mul_((bits < round(share * 65536) - 32768) / share)

    @torch.no_grad()
    def finalize_phase_one(self) -> None:
        """Set the parts of computed weights to the values that `WeightMethod.settled` returns at the end of the first phase."""
        parts = self._parts()
        for name, (_, _, names) in self._computed.items():
            values = Values({part: parts[f"{BACKBONE}.{name}.{part}"] for part in names})
            for part, value in self._method.settled(values).items():
                values[part].copy_(value)

    def _parts(self) -> dict[str, Tensor]:
        """Returns views of `leaf` for all tensors of the trial by name, in their shapes with a leading 1."""
        split = self._leaf.split([e.size for e in self._entries], dim=1)
        return {e.name: part.view(e.stacked(1)) for e, part in zip(self._entries, split, strict=True)}

    def _noise(self, values: Values, seed: int, name: str) -> Values:
        """Uniform noise for the parts of a computed weight that the method names in `noisy`, each of the part's shape.

        The numbers are (k + 0.5) / 2**16 for k from 0 to 2**16 - 1, so that they are never 0 or 1.
        """

        def uniform(part: str) -> Tensor:
            like = values[part]
            bits = torch.as_tensor(random_bits(like.numel(), derive(seed, name, part), like.device))
            return bits.to(like.dtype).add_(32768.5).div_(65536).view(like.shape)

        return Values({part: uniform(part) for part in self._method.noisy if part in values})
