"""Paired bootstrap over test examples: computes the scores of all finals of a task for every resample of the examples.

A resample is a vector with the number of times that each example was drawn. All methods and seeds of a task use the same
resamples, so that their scores are paired. The metric is computed from scratch for every resample, because correlations and F1
are not means over examples. Its formulas are sums over examples, so that a few matrix products compute all resamples at once.

The metrics are those of `trainables/tasks/metrics.py`; a test compares the two. They are 0 where they are not defined. The
private functions take predictions p [K, n], labels t [n] and counts w [B, n], and return scores [B, K] as fractions of 1.
Shapes: K runs (finals of all methods of a task), n examples, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

DRAWS = 2000  # a variance estimated from this many resamples has a standard error of 3 %
MAX_COUNTS = 20_000_000  # largest B * n, 160 MB; large test splits get fewer resamples
MIN_DRAWS = 200

Array = np.ndarray


def draw_resamples(num_examples: int, generator: np.random.Generator, num_draws: int = DRAWS) -> Array:
    """Return how often each example was drawn in each resample, [B, n]; every row sums to n.

    B is `num_draws`, reduced (to `MIN_DRAWS` at the least) if B * n would exceed `MAX_COUNTS`.
    """
    num_draws = min(num_draws, max(MIN_DRAWS, MAX_COUNTS // num_examples))
    chosen = generator.integers(0, num_examples, (num_draws, num_examples))
    rows = np.arange(num_draws)[:, None] * num_examples
    counts = np.bincount((chosen + rows).ravel(), minlength=num_draws * num_examples)
    return counts.reshape(num_draws, num_examples).astype(float)


def resampled_scores(metric: str, predictions: Array, labels: Array, weights: Array) -> Array:
    """Return the scores [B, K], in percent points, of predictions [K, n] against labels [n] with the examples weighted by
    `weights` [B, n].

    Raises ValueError for a metric that `_FORMULAS` does not have.
    """
    if metric not in _FORMULAS:
        raise ValueError(f"metric {metric!r} has no formula; known: {', '.join(sorted(_FORMULAS))}")
    return 100 * _FORMULAS[metric](predictions, labels, weights)


def covariances(metric: str, predictions: Array, labels: Array, weights: Array) -> Array:
    """Return the covariance [K, K] of the runs' scores over the choice of test examples, in squared percent points.

    `weights` [B, n] are those of `draw_resamples`. The bootstrap underestimates variances by the factor (n - 1) / n, because it
    draws from the n examples instead of the population; the result is corrected for this.
    """
    n = len(labels)
    scores = resampled_scores(metric, predictions, labels, weights)
    return np.atleast_2d(np.cov(scores, rowvar=False)) * n / max(n - 1, 1)


def _accuracy(p: Array, t: Array, w: Array) -> Array:
    return _mean(p == t, w)


def _mean(values: Array, w: Array) -> Array:
    """Return the weighted means [B, K] over examples of values [K, n]."""
    return (w @ values.T.astype(float)) / w.sum(1, keepdims=True)


def _quotient(part: Array, whole: Array) -> Array:
    """Return part / whole, and 0 where `whole` is 0 up to rounding errors."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 1e-12)


def _f1_of(c: float, p: Array, t: Array, w: Array) -> Array:
    """Return the F1 score of class `c` against all others."""
    hits, chosen, real = _mean((p == c) & (t == c), w), _mean(p == c, w), _mean((t == c)[None], w)
    return _quotient(2 * hits, chosen + real)


def _f1(p: Array, t: Array, w: Array) -> Array:
    return _f1_of(1, p, t, w)


def _precision(p: Array, t: Array, w: Array) -> Array:
    return _quotient(_mean((p == 1) & (t == 1), w), _mean(p == 1, w))


def _recall(p: Array, t: Array, w: Array) -> Array:
    hits = _mean((p == 1) & (t == 1), w)
    return _quotient(hits, np.broadcast_to(_mean((t == 1)[None], w), hits.shape))


def _macro_f1(p: Array, t: Array, w: Array) -> Array:
    """Return the mean F1 score over the classes that occur among a run's predictions or the labels in the resample."""
    total, occurring = np.zeros((len(w), len(p))), np.zeros((len(w), len(p)))
    for c in np.union1d(p, t):
        total += _f1_of(c, p, t, w)
        occurring += _mean((p == c) | (t == c), w) > 0
    return total / occurring


def _matthews(p: Array, t: Array, w: Array) -> Array:
    """Return the Matthews correlation for any number of classes (Gorodkin 2004), from covariances of class indicators."""
    shared = _mean(p == t, w)
    both, chosen, real = np.zeros_like(shared), np.zeros_like(shared), np.zeros((len(w), 1))
    for c in np.union1d(p, t):
        of_c, truly_c = _mean(p == c, w), _mean((t == c)[None], w)
        both += of_c * truly_c
        chosen += of_c**2
        real += truly_c**2
    return _quotient(shared - both, np.sqrt(np.maximum((1 - chosen) * (1 - real), 0)))


def _pearson(p: Array, t: Array, w: Array) -> Array:
    # Values are centred first, because differences of large sums of squares would lose precision.
    p, t = p - p.mean(1, keepdims=True), (t - t.mean())[None]
    means, truth = _mean(p, w), _mean(t, w)
    covariance = _mean(p * t, w) - means * truth
    scale = (_mean(p * p, w) - means**2) * (_mean(t * t, w) - truth**2)
    return _quotient(covariance, np.sqrt(np.maximum(scale, 0)))


def _spearman(p: Array, t: Array, w: Array) -> Array:
    truth = _ranks(t, w)
    columns = [_row_correlation(_ranks(one, w), truth, w) for one in p]
    return np.stack(columns, axis=1)


def _ranks(values: Array, w: Array) -> Array:
    """Return the ranks [B, n] of values [n] within each resample; equal values get the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    starts = np.searchsorted(values[order], values[first])
    counts = np.add.reduceat(w[:, order], starts, axis=1)
    return (np.cumsum(counts, 1) - (counts - 1) / 2)[:, inverse]


def _row_correlation(a: Array, b: Array, w: Array) -> Array:
    """Return the weighted Pearson correlations [B] of each row of a [B, n] with the same row of b [B, n]."""
    total = w.sum(1, keepdims=True)
    a, b = a - (w * a).sum(1, keepdims=True) / total, b - (w * b).sum(1, keepdims=True) / total
    return _quotient((w * a * b).sum(1), np.sqrt((w * a * a).sum(1) * (w * b * b).sum(1)))


_FORMULAS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}

# Metrics that are correlations lie between -100 and 100 percent points; all others between 0 and 100.
_CORRELATIONS = ("matthews", "pearson", "spearman")


def score_limits(metric: str) -> tuple[float, float]:
    """Return the lowest and highest possible value of a metric, in percent points."""
    return (-100.0 if metric in _CORRELATIONS else 0.0), 100.0
