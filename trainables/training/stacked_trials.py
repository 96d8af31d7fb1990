"""Trials whose parameters are stacked: a group of tensors and the slots that its rows belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import Rows, sent
from trainables.training.stacked_parameters import StackedParameters
from trainables.training.trial_state import TrialState


@dataclass
class StackedTrials:
    """A group and its residents, in the order of the group's rows."""

    group: StackedParameters
    slots: list[TrialState] = field(default_factory=list)

    def can_stack_with(self, other: StackedTrials) -> bool:
        """Whether both can be stacked: same method and settings, head, loss and optimiser constants."""
        return self._constants == other._constants

    def drawn(self, backbone: Backbone) -> dict[str, Tensor]:
        """What the trials' method draws for the next step, [G, 1, n] by name."""
        draws = [slot.method.draws(backbone.shape, slot.random("draws")) for slot in self.slots]
        return _stacked(draws, backbone)

    @property
    def noise(self) -> int:
        """The seed of what a trial with a backbone of its own, the only one of its company, draws in the next step."""
        return self.slots[0].seed("noise")

    def rest(self, backbone: Backbone, rows: int) -> dict[str, Tensor]:
        """The same for an evaluation of so many rows."""
        return _stacked([self.slots[0].method.rest(backbone.shape)] * rows, backbone)

    @property
    def _constants(self) -> tuple[object, ...]:
        slot = self.slots[0]
        task, recipe = slot.data.task, slot.trial.recipe
        return slot.method, task.outputs, task.regression, recipe.beta1, recipe.beta2, recipe.eps


def dropout_of(slots: Sequence[TrialState], steps: Sequence[int], rows: Rows, backbone: Backbone) -> DropoutFactors:
    """The dropout of each slot's row, from the trials' streams of these steps."""
    hidden, attention = backbone.config_dropout
    rates = [slot.trial.recipe.dropout for slot in slots]
    return DropoutFactors(
        rows,
        backbone.shape,
        [(slot.trial.seed, step) for slot, step in zip(slots, steps, strict=True)],
        [hidden if rate < 0 else rate for rate in rates],
        [attention if rate < 0 else rate for rate in rates],
        [slot.method.prefix_tokens for slot in slots],
        [slot.method.prefix_dropout for slot in slots],
    )


def _stacked(draws: Sequence[Mapping[str, ArrayLike]], backbone: Backbone) -> dict[str, Tensor]:
    def stack(vectors: list[ArrayLike]) -> Tensor:
        return sent(torch.from_numpy(np.asarray(vectors, np.float32)), backbone.device)[:, None]

    return {name: stack([each[name] for each in draws]) for name in draws[0]}
