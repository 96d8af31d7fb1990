"""The classification head of a pass: what it reads of the last hidden states, and a trial's own layers on it.

Legend: K slots, N tokens of all rows, n of those that the last layer computed, G rows of a segment, E examples of a row, D width,
C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.families.family import Activation, ClassificationHead
from trainables.methods.context import Values

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "gelu": F.gelu, "relu": F.relu}


def pooled(backbone: Backbone, first: Tensor) -> Tensor:
    """The input [K, E, D] of the family's own head, from last hidden states of first tokens [K, E, D]."""
    head = backbone.family.head
    if head.pooler is None:
        return first
    pooler: Any = backbone.module.get_submodule(head.pooler)
    return ACTIVATIONS[head.activation](pooler(first))


def head_logits(head: ClassificationHead, p: Values, h: Tensor, drop: Callable[[Tensor, int], Tensor]) -> Tensor:
    """h [G, E, D] -> [G, E, C].

    A trial has a dense layer of its own if its method reads the family's own head and that has no pretrained one.

    drop: dropout of a tensor before (0) or after (1) that dense layer; without one, 0 is before the last map.
    """
    if "dense" not in p:
        return drop(h, 0) @ p.out + p.out_bias
    if head.drops_input:
        h = drop(h, 0)
    h = drop(ACTIVATIONS[head.activation](h @ p.dense + p.dense_bias), 1)
    return h @ p.out + p.out_bias
