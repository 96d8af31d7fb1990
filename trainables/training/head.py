"""The classification head of a forward pass: its input, computed from the last hidden states, and the trials' own layers.

Legend: K rows of all trials, G rows of one segment (one stack of trials), E most examples of a row, D width, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.families.family import Activation
from trainables.methods.context import Values

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "gelu": F.gelu, "relu": F.relu}


def pooled(backbone: Backbone, read: Tensor) -> Tensor:
    """Returns the input [K, E, D] of the family's own head: the pretrained pooler's output, or `read` if there is no pooler.

    read: last hidden states [K, E, D] of the token of each example that heads read.
    """
    head = backbone.family.head
    if head.pooler is None:
        return read
    pooler: Any = backbone.module.get_submodule(head.pooler)
    return ACTIVATIONS[head.activation](pooler(read))


def head_logits(backbone: Backbone, p: Values, h: Tensor, drop: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Returns the logits [G, E, C] of the trials' heads for the inputs h [G, E, D]. `p`: the parameters of these heads.

    A trial trains a dense layer if its method uses the family's own head and the family has no pretrained pooler.

    drop(tensor, i): dropout before (i = 0) or after (i = 1) that dense layer; without it, i = 0 is before the last linear map.
    """
    head = backbone.family.head
    if "dense" not in p:
        logits = drop(h, 0) @ p.out
        return logits + p.out_bias if "out_bias" in p else logits
    if head.drops_input:
        h = drop(h, 0)
    h = h @ p.dense
    h = ACTIVATIONS[head.activation](h + p.dense_bias if "dense_bias" in p else h)
    if "norm" in p:
        h = F.layer_norm(h, h.shape[-1:], eps=backbone.norms[-1].eps) * p.norm
    return drop(h, 1) @ p.out + p.out_bias
