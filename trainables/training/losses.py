"""The training loss of packed rows.

Legend: K slots, G rows of a segment, E examples of a row, C outputs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.packing import Rows
from trainables.training.segments import Segment


def losses_of(logits: Tensor, rows: Rows, segment: Segment, regression: bool) -> Tensor:
    """Mean loss of each row [G]: cross-entropy of logits [G, E, C], or squared error of [G, E, 1]."""
    labels, weights = segment.of(rows.labels), segment.of(rows.weights)
    if regression:
        each = (logits.squeeze(-1) - labels).square()
    else:
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none").view_as(weights)
    return (each * weights).sum(1)
