"""The training loss of packed rows.

Legend: K slots, G rows of a segment, E examples of a row, C outputs.
"""

from __future__ import annotations

from torch import Tensor

from trainables.backbone.packing import Rows
from trainables.tasks.forms.form import Form
from trainables.training.segments import Segment


def losses_of(logits: Tensor, rows: Rows, segment: Segment, form: Form) -> Tensor:
    """Mean loss [G] of each row's examples, from logits [G, E, C], as the task's form defines it."""
    labels, weights = segment.of(rows.labels), segment.of(rows.weights)
    return (form.losses(logits, labels) * weights).sum(1)
