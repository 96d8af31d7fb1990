"""Ablation: a trained method removed from spans of layers without re-training (Houlsby et al. 2019, section 3.6, figure 6).

It is removed by zeroing, in a copy of the trial's best row, those parameters that the method says it vanishes with there
(`Method.removed_at_zero`). Trained LayerNorms and the head stay. Each span is a row of an evaluation like any other.

Legend: L layers, P parameters of one trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from search_spaces.records import Ablation
from trainables.backbone.backbone import Backbone
from trainables.training.evaluation import EvalRequest, evaluate
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.stacked_parameters import StackedParameters
from trainables.training.stacked_trials import StackedTrials
from trainables.training.trial_state import TrialState

# Spans in memory at a time, each a copy of the trial's row: as many as fill a pass of the evaluation.
TOGETHER = 4
Span = tuple[int, int]  # first and last layer removed, from 0


def ablate(backbone: Backbone, slot: TrialState, layout: ParameterLayout) -> Ablation | None:
    """Validation scores of the trial's best epoch with every span removed; None for a method that zeros do not remove."""
    if not layout.method.removed_at_zero:
        return None
    started, L = time.monotonic(), layout.shape.layers
    scores = dict(_scores(backbone, slot, layout, [None, *spans_of(L)]))
    return Ablation(
        whole=scores[None],
        spans=tuple(tuple(scores[first, last] for last in range(first, L)) for first in range(L)),
        seconds=time.monotonic() - started,
    )


def spans_of(layers: int) -> list[Span]:
    """All L (L + 1) / 2 of them."""
    return [(first, last) for first in range(layers) for last in range(first, layers)]


def without(row: Tensor, layout: ParameterLayout, span: Span | None) -> Tensor:
    """A copy of a trial's row [P] with the method removed from these layers, if any."""
    row = row.clone()
    first, last = span or (0, -1)
    for e in layout.entries:
        layer, _, rest = e.name.partition(".")
        removed = rest.rpartition(".")[2] in layout.method.removed_at_zero
        if layer.isdigit() and first <= int(layer) <= last and removed:
            row[e.start : e.stop] = 0
    return row


def _scores(
    backbone: Backbone, slot: TrialState, layout: ParameterLayout, spans: Sequence[Span | None]
) -> Iterator[tuple[Span | None, float]]:
    for start in range(0, len(spans), TOGETHER):
        some = spans[start : start + TOGETHER]
        rows = torch.stack([without(slot.best, layout, span) for span in some])
        company = StackedTrials(StackedParameters(layout, backbone, slot.trial.recipe, rows), [slot] * len(some))
        questions = [EvalRequest(company, place, slot.data.validation) for place in range(len(some))]
        found = evaluate(backbone, questions)
        yield from ((span, scores.score) for span, scores in zip(some, found, strict=True))
