"""Trials whose parameters are stacked: a group of tensors and the slots that its rows belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trainables.backbone import Backbone
from trainables.group import Group
from trainables.slot import Slot


@dataclass
class Company:
    """A group and its residents, in the order of the group's rows."""

    group: Group
    slots: list[Slot] = field(default_factory=list)

    def is_kin(self, other: Company) -> bool:
        """Whether both can be stacked: same method and settings, head, loss and optimiser constants."""
        return self._constants == other._constants

    def drawn(self, backbone: Backbone) -> dict[str, Tensor]:
        """What the trials' method draws for the next step, [G, 1, n] by name."""
        draws = [slot.method.draws(backbone.shape, slot.random("draws")) for slot in self.slots]
        return _stacked(draws, backbone)

    def rest(self, backbone: Backbone, rows: int) -> dict[str, Tensor]:
        """The same for an evaluation of so many rows."""
        return _stacked([self.slots[0].method.rest(backbone.shape)] * rows, backbone)

    @property
    def _constants(self) -> tuple[object, ...]:
        slot = self.slots[0]
        task, recipe = slot.data.task, slot.trial.recipe
        return slot.method, task.outputs, task.regression, recipe.beta1, recipe.beta2, recipe.eps


def _stacked(draws: Sequence[Mapping[str, Sequence[float] | np.ndarray]], backbone: Backbone) -> dict[str, Tensor]:
    def stack(vectors: list[Sequence[float] | np.ndarray]) -> Tensor:
        return torch.from_numpy(np.array(vectors, np.float32)).to(backbone.device)[:, None]

    return {name: stack([each[name] for each in draws]) for name in draws[0]}
