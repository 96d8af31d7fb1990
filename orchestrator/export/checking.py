"""Compares the predictions of a written export with those that the sweep recorded for the test split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator import reproduce
from orchestrator.export.kept_final import KeptFinal
from orchestrator.export.predictor import Predictor
from orchestrator.ledger import Damaged
from orchestrator.search.predictions import read_predictions
from trainables.tasks import tokens
from trainables.tasks.task_data import Split

# Examples that are compared: enough to notice a wrong tensor, few enough for a minute on a CPU.
MOST_EXAMPLES = 500
# A sweep's GPU and this machine's processor round differently, so that a few examples near a decision may change their class.
MOST_DIFFERENT = 0.02
# Likewise for regression: root mean square of the differences, in standard deviations of the recorded predictions.
MOST_DEVIATION = 0.05


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How predictions of an export compare with the recorded ones.

    `num_examples`: how many were compared, 0 if that was not possible, because of `reason`. `num_equal`: in how many the class is
    the same. `largest`: of a regression, the largest absolute difference, in the unit of the targets.
    """

    num_examples: int = 0
    num_equal: int = 0
    largest: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if not self.num_examples:
            return f"test predictions were not compared with the recorded ones: {self.reason}"
        if self.largest is not None:
            return f"{self.num_examples} test predictions differ from the recorded ones by at most {self.largest:.2g}"
        return f"{self.num_equal} of {self.num_examples} test predictions are the recorded ones"


def check(kept: KeptFinal, predictor: Predictor) -> Agreement:
    """Return how predictions on the first examples of the test split agree. Raises Damaged if they are those of another model."""
    record = kept.record
    recorded = read_predictions(record.folder / kept.outcome.predictions) if kept.outcome.predictions else None
    if recorded is None:
        return Agreement(reason="the file with the recorded ones is gone")
    try:
        data = tokens.read(reproduce.tokens_of(record, kept.final.trial))
    except ValueError as error:
        return Agreement(reason=str(error))
    split = _first(data.test, MOST_EXAMPLES)
    found = np.asarray(predictor.predictions(predictor.outputs(split)))
    before = np.asarray(recorded[0])[: len(found)]
    if predictor.record.task.classes:
        equal = int((found == before).sum())
        wrong = len(found) - equal > max(1, MOST_DIFFERENT * len(found))
        agreement = Agreement(num_examples=len(found), num_equal=equal)
    else:
        wrong = _distance(found, before) > MOST_DEVIATION
        agreement = Agreement(num_examples=len(found), largest=float(np.abs(found - before).max()))
    if wrong:
        raise Damaged(
            f"the exported model does not predict what the final {kept.final.trial.id} did: {agreement}; nothing was written"
        )
    return agreement


def _distance(found: np.ndarray, before: np.ndarray) -> float:
    """Return the root mean square of the differences, in standard deviations of `before`."""
    scale = max(float(before.std()), 1e-6 * float(np.abs(before).max()), 1e-30)
    return float(np.sqrt(((found - before) ** 2).mean())) / scale


def _first(split: Split, number: int) -> Split:
    """Return the first examples of a split."""
    n = min(number, len(split))
    end = int(split.offsets[n])
    return Split(
        ids=split.ids[:end],
        token_types=split.token_types[:end],
        offsets=split.offsets[: n + 1],
        labels=split.labels[:n],
    )
