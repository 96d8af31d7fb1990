"""Evaluation of trials on whole splits, dropout off: rows of the same engine, many trials' rows in one pass.

A row holds examples of one trial only, and the same ones in any company.

Legend: E examples of a row, C outputs.
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
from trainables.training.forward_pass import ForwardPass, Segment
from trainables.training.stacked_trials import StackedTrials

# Tokens of one row, and of all rows in a pass: enough to fill the matrix products, few enough for a cache.
ROW_TOKENS, PASS_TOKENS = 2048, 8192


@dataclass(frozen=True)
class EvalRequest:
    """How does the trial in this place of a company do on a split?"""

    company: StackedTrials
    place: int
    split: Split


@dataclass(frozen=True)
class EvalRow:
    """Examples of similar length from the split of question `number`."""

    number: int
    question: EvalRequest
    chosen: np.ndarray
    tokens: int


@torch.no_grad()
def evaluate(backbone: Backbone, questions: Sequence[EvalRequest]) -> list[Scores]:
    """The scores of each question."""
    outputs = [np.empty((len(q.split), q.company.group.layout.outputs), np.float32) for q in questions]
    for rows in _passes([row for i in _by_company(questions) for row in _rows(i, questions[i])]):
        for row, logits in zip(rows, _forward(backbone, rows), strict=True):
            outputs[row.number][row.chosen] = logits[: len(row.chosen)]
    return [
        compute_metrics(q.company.slots[q.place].data.task, each, q.split.labels)
        for q, each in zip(questions, outputs, strict=True)
    ]


def _forward(backbone: Backbone, rows: Sequence[EvalRow]) -> list[np.ndarray]:
    """The logits [E, C] of each row."""
    segments: list[Segment] = []
    for _, those in groupby(rows, key=lambda row: id(row.question.company)):
        questions = [row.question for row in those]
        company, start = questions[0].company, segments[-1].stop if segments else 0
        places, drawn = [q.place for q in questions], company.rest(backbone, len(questions))
        segments.append(Segment(company.group, start, start + len(places), places, drawn))
    packed = pack(
        [(row.question.split, row.chosen) for row in rows],
        backbone.shape.heads,
        backbone.device,
        [s.stop - s.start for s in segments],
        [row.question.company.slots[0].method.virtual_tokens for row in rows],
    )
    logits = ForwardPass(backbone, segments, packed, None).logits()
    return [row for part in logits for row in part.float().cpu().numpy()]


def _by_company(questions: Sequence[EvalRequest]) -> list[int]:
    """An order in which rows of one company stand side by side, so that they are one segment of a pass."""
    seen = list(dict.fromkeys(id(q.company) for q in questions))
    return sorted(range(len(questions)), key=lambda i: seen.index(id(questions[i].company)))


def _rows(number: int, question: EvalRequest) -> Iterator[EvalRow]:
    """The split in rows of about ROW_TOKENS, examples of similar length together."""
    lengths = np.diff(question.split.offsets)
    order = np.argsort(lengths, kind="stable")
    cuts = np.flatnonzero(np.diff(np.cumsum(lengths[order]) // ROW_TOKENS)) + 1
    for chosen in np.split(order, cuts):
        yield EvalRow(number, question, chosen, int(lengths[chosen].sum()))


def _passes(rows: Sequence[EvalRow]) -> Iterator[list[EvalRow]]:
    """Rows in turn, as many as make about PASS_TOKENS."""
    together: list[EvalRow] = []
    for row in rows:
        if together and sum(r.tokens for r in together) + row.tokens > PASS_TOKENS:
            yield together
            together = []
        together.append(row)
    yield together
