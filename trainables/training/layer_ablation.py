"""Ablation: a trained method removed from spans of layers without re-training (Houlsby et al. 2019, section 3.6, figure 6).

A method is removed from a layer by zeroing its parameters named in `Method.removed_at_zero` in that layer, in a copy of the
trial's best parameters. Trained LayerNorms and the head stay. A span is a range of consecutive layers; for each span one such
copy is evaluated as if it were a trial. A task that is scored by Matthews correlation is evaluated in accuracy, as in the paper's
figure: without any method its head predicts one class, which is 0 in Matthews correlation whatever was removed.

Legend: L layers, P parameters of one trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from search_spaces.records import Ablation
from trainables.backbone.backbone import Backbone
from trainables.tasks.forms.form import Metric
from trainables.tasks.task_data import Task
from trainables.training.evaluation import EvalRequest, evaluate
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.stacked_parameters import StackedParameters
from trainables.training.stacked_trials import StackedTrials
from trainables.training.trial_state import TrialState

# Spans evaluated together, each a copy of the trial's parameters in memory; one pass of the evaluation has four full rows.
SPANS_PER_PASS = 4
Span = tuple[int, int]  # first and last layer removed, from 0


def ablate(backbone: Backbone, state: TrialState, layout: ParameterLayout) -> Ablation | None:
    """Validation scores (percent points) of the trial's best parameters with the method removed from each span of layers.

    They are those of the metric that `metric_of` names.

    Returns None for a method that cannot be removed by zeroing parameters.
    """
    if not layout.method.removed_at_zero:
        return None
    started, L = time.monotonic(), layout.shape.layers
    metric = metric_of(state.data.task)
    scores = dict(_scores(backbone, state, layout, [None, *spans_of(L)], metric))
    return Ablation(
        whole=scores[None],
        spans=tuple(tuple(scores[first, last] for last in range(first, L)) for first in range(L)),
        seconds=time.monotonic() - started,
        metric="" if metric == state.data.task.metrics[0] else metric,
    )


def metric_of(task: Task) -> Metric:
    """Returns the metric of the task's ablations: accuracy for a task scored by Matthews correlation, if it has that metric."""
    score = task.metrics[0]
    return "accuracy" if score == "matthews" and "accuracy" in task.metrics else score


def spans_of(layers: int) -> list[Span]:
    """Returns all L (L + 1) / 2 spans of consecutive layers, as (first, last)."""
    return [(first, last) for first in range(layers) for last in range(first, layers)]


def without(values: Tensor, layout: ParameterLayout, span: Span | None) -> Tensor:
    """Returns a copy of a trial's values [P] with the method removed from the layers of `span`; None removes nothing."""
    values = values.clone()
    first, last = span or (0, -1)
    for e in layout.entries:
        layer, _, rest = e.name.partition(".")
        removed = rest.rpartition(".")[2] in layout.method.removed_at_zero
        if layer.isdigit() and first <= int(layer) <= last and removed:
            values[e.start : e.stop] = 0
    return values


def _scores(
    backbone: Backbone, state: TrialState, layout: ParameterLayout, spans: Sequence[Span | None], metric: Metric
) -> Iterator[tuple[Span | None, float]]:
    """Yield each span with the validation score in this metric when the method is removed from it."""
    for start in range(0, len(spans), SPANS_PER_PASS):
        some = spans[start : start + SPANS_PER_PASS]
        values = torch.stack([without(state.best, layout, span) for span in some])
        stack = StackedTrials(StackedParameters(layout, backbone, state.trial.recipe, values), [state] * len(some))
        requests = [EvalRequest(stack=stack, index=i, split=state.data.validation) for i in range(len(some))]
        found = evaluate(backbone, requests)
        yield from ((span, scores.metrics[metric]) for span, scores in zip(some, found, strict=True))
