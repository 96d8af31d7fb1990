"""Computes a task's metrics from outputs and labels. All are in percent points and are to be maximised.

They are written in numpy because every device worker imports this module and uses it after every epoch; the tests compare the
formulas with scikit-learn and scipy. A correlation that is undefined because all predictions are equal counts as 0, so that
collapsed trials can enter means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainables.tasks.forms.form import Metric
from trainables.tasks.task_data import Task

# Predictions count as equal if their range is at most this fraction of the largest one (or of 1): float32 rounding.
CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scores:
    """`metrics`: in percent points, the score first. `predictions`: a class index or a value in the targets' unit per example.

    `collapsed`: the model answers the same whatever its input is (`Form.collapsed`).
    """

    metrics: dict[Metric, float]
    predictions: list[float]
    collapsed: bool

    @property
    def score(self) -> float:
        return next(iter(self.metrics.values()))


def compute_metrics(task: Task, outputs: np.ndarray, labels: np.ndarray) -> Scores:
    """Return metrics and predictions for outputs [n, C] of the head and encoded labels [n] (n examples, C outputs).

    Outputs are logits of C classes, or standardised values if C = 1. If any of them is not finite, the model has diverged, and
    all count as 0. Metrics are computed from encoded predictions: those of a regression do not depend on the targets' unit.
    """
    assert outputs.ndim == 2, outputs.shape
    assert len(outputs) == len(labels) > 0, (outputs.shape, labels.shape)
    if not np.isfinite(outputs).all():
        outputs = np.zeros_like(outputs)
    predictions = task.form.predictions(outputs)
    if _constant(predictions):
        predictions = np.full_like(predictions, predictions[0])
    truth = labels.astype(np.float64)
    return Scores(
        metrics={name: 100.0 * FORMULAS[name](predictions, truth) for name in task.metrics},
        predictions=task.form.decode(predictions).tolist(),
        collapsed=task.form.collapsed(predictions),
    )


def _constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= CONSTANT * max(1.0, np.abs(values).max()))


def _accuracy(predictions: np.ndarray, truth: np.ndarray) -> float:
    return float((predictions == truth).mean())


def _f1(predictions: np.ndarray, truth: np.ndarray) -> float:
    """F1 of class 1."""
    return _f1_of(1, predictions, truth)


def _precision(predictions: np.ndarray, truth: np.ndarray) -> float:
    """Precision of class 1; 0 if class 1 is never predicted."""
    chosen = predictions == 1
    return float((truth[chosen] == 1).mean()) if chosen.any() else 0.0


def _recall(predictions: np.ndarray, truth: np.ndarray) -> float:
    """Recall of class 1; 0 if no label is class 1."""
    return _precision(truth, predictions)


def _macro_f1(predictions: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the F1 of all classes that occur among the predictions or the labels."""
    return float(np.mean([_f1_of(c, predictions, truth) for c in np.union1d(predictions, truth)]))


def _f1_of(c: float, predictions: np.ndarray, truth: np.ndarray) -> float:
    hits, chosen, real = ((predictions == c) & (truth == c)).sum(), (predictions == c).sum(), (truth == c).sum()
    return float(2 * hits / (chosen + real)) if chosen + real else 0.0


def _matthews(predictions: np.ndarray, truth: np.ndarray) -> float:
    """Matthews correlation for any number of classes (Gorodkin 2004, the statistic R_K); 0 if it is not defined."""
    classes = np.union1d(predictions, truth)
    p, t = ((values[:, None] == classes).astype(np.float64) for values in (predictions, truth))

    def covariance(x: np.ndarray, y: np.ndarray) -> float:
        return float((x * y).sum(1).mean() - (x.mean(0) * y.mean(0)).sum())

    scale = covariance(p, p) * covariance(t, t)
    return covariance(p, t) / float(np.sqrt(scale)) if scale > 1e-15 else 0.0


def _pearson(predictions: np.ndarray, truth: np.ndarray) -> float:
    p, t = predictions - predictions.mean(), truth - truth.mean()
    scale = float(np.sqrt((p @ p) * (t @ t)))
    return float(p @ t) / scale if scale > 0 else 0.0


def _spearman(predictions: np.ndarray, truth: np.ndarray) -> float:
    return _pearson(_ranks(predictions), _ranks(truth))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, counted from 1; equal values get the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


FORMULAS: dict[Metric, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "matthews": _matthews,
    "macro_f1": _macro_f1,
    "pearson": _pearson,
    "spearman": _spearman,
}
