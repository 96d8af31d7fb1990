"""Evaluation of trials on whole splits, without dropout, many trials in one forward pass.

A row holds examples for one trial only. Which examples share a row depends on the split alone, so a trial's outputs do not
depend on the other trials in the pass.

Legend: E most examples of a row, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import pack
from trainables.tasks.metrics import Scores, compute_metrics
from trainables.tasks.task_data import Split
from trainables.training.activity import record_activity
from trainables.training.forward_pass import ForwardPass
from trainables.training.segments import Segment
from trainables.training.stacked_trials import StackedTrials

# Tokens of one row, and of all rows in a pass: enough for efficient matrix products, few enough for a processor's cache.
ROW_TOKENS, PASS_TOKENS = 2048, 8192


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """A request to evaluate the current parameters of trial number `index` of a stack on a split."""

    stack: StackedTrials
    index: int
    split: Split


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """Examples of one request that are evaluated as one packed row; their lengths are similar."""

    # Position of the request among all requests.
    number: int
    request: EvalRequest
    # Indices into the request's split.
    examples: np.ndarray
    num_tokens: int


@torch.no_grad()
def evaluate(backbone: Backbone, requests: Sequence[EvalRequest]) -> list[Scores]:
    """Evaluate all requests. Returns the scores of each, in the same order."""
    return [
        compute_metrics(r.stack.states[r.index].data.task, logits, r.split.labels)
        for r, logits in zip(requests, head_outputs(backbone, requests), strict=True)
    ]


@torch.no_grad()
def head_outputs(backbone: Backbone, requests: Sequence[EvalRequest]) -> list[np.ndarray]:
    """Returns, for each request, the outputs [n, C] of the trial's head on the n examples of its split."""
    outputs = [np.empty((len(r.split), r.stack.parameters.layout.outputs), np.float32) for r in requests]
    for rows in _passes([row for i in _by_stack(requests) for row in _rows(i, requests[i])]):
        for row, logits in zip(rows, row_logits(backbone, rows), strict=True):
            outputs[row.number][row.examples] = logits[: len(row.examples)]
        record_activity()
    return outputs


def row_logits(backbone: Backbone, rows: Sequence[EvalRow]) -> list[np.ndarray]:
    """Run one forward pass. Returns the logits [E, C] of each row; logits beyond the row's own examples are meaningless.

    Rows of one stack must be adjacent.
    """
    segments: list[Segment] = []
    for _, adjacent in groupby(rows, key=lambda row: id(row.request.stack)):
        requests = [row.request for row in adjacent]
        stack, start = requests[0].stack, segments[-1].stop if segments else 0
        inputs = stack.eval_inputs(backbone, len(requests))
        segments.append(Segment(stack.parameters, start, start + len(requests), [r.index for r in requests], inputs))
    packed = pack(
        [(row.request.split, row.examples) for row in rows],
        backbone.indexed_heads,
        backbone.device,
        [s.stop - s.start for s in segments],
        [row.request.stack.states[0].method.virtual_tokens for row in rows],
        reads_last=backbone.shape.reads_last,
    )
    logits = ForwardPass(backbone, segments, packed, None).logits()
    return [row for part in logits for row in part.float().cpu().numpy()]


def _by_stack(requests: Sequence[EvalRequest]) -> list[int]:
    """Returns the indices of the requests, ordered so that those of one stack are adjacent."""
    stacks = list(dict.fromkeys(id(r.stack) for r in requests))
    return sorted(range(len(requests)), key=lambda i: stacks.index(id(requests[i].stack)))


def _rows(number: int, request: EvalRequest) -> Iterator[EvalRow]:
    """Cut the split of a request, sorted by length, into rows of about ROW_TOKENS tokens. `number` is the request's position."""
    lengths = np.diff(request.split.offsets)
    order = np.argsort(lengths, kind="stable")
    cuts = np.flatnonzero(np.diff(np.cumsum(lengths[order]) // ROW_TOKENS)) + 1
    for examples in np.split(order, cuts):
        yield EvalRow(number=number, request=request, examples=examples, num_tokens=int(lengths[examples].sum()))


def _passes(rows: Sequence[EvalRow]) -> Iterator[list[EvalRow]]:
    """Yield the rows of one pass after another, in order: at most PASS_TOKENS tokens, or one longer row."""
    chosen: list[EvalRow] = []
    for row in rows:
        if chosen and sum(r.num_tokens for r in chosen) + row.num_tokens > PASS_TOKENS:
            yield chosen
            chosen = []
        chosen.append(row)
    yield chosen
