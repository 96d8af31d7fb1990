"""The training loss of packed rows.

Legend: G rows of a segment (one stack of trials), E most examples of a row, C outputs of the head.
"""

from __future__ import annotations

from torch import Tensor

from trainables.backbone.packing import Rows
from trainables.tasks.forms.form import Form
from trainables.training.segments import Segment


def losses_of(logits: Tensor, rows: Rows, segment: Segment, form: Form) -> Tensor:
    """Returns the mean loss [G] over the examples of each row, for logits [G, E, C] and the loss function of the task's form."""
    labels, weights = segment.of(rows.labels), segment.of(rows.weights)
    return (form.losses(logits, labels) * weights).sum(1)
