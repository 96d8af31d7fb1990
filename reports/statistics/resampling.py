"""Scores under resampled test examples: the metric itself is computed anew for every draw, as is right for correlations.

A draw is a vector of how often each example occurs. The same draws serve every method and seed of a task, which keeps the
comparison paired. All formulas are sums over examples, so that all draws are a few matrix products.

Formulas are those of `trainables/tasks/metrics.py` (a test holds them together), in percent points, 0 where a correlation is not
defined. Legend: K runs (a method with a seed), n examples, B draws, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

DRAWS = 2000  # the standard error of a variance estimated from these is 3 %
MAX_COUNTS = 20_000_000  # B * n, 160 MB; large test splits get fewer draws
MIN_DRAWS = 200

Array = np.ndarray


def draw_resamples(num_examples: int, generator: np.random.Generator, num_draws: int = DRAWS) -> Array:
    """How often each example occurs in each resample: [B, n], rows sum to n."""
    num_draws = min(num_draws, max(MIN_DRAWS, MAX_COUNTS // num_examples))
    chosen = generator.integers(0, num_examples, (num_draws, num_examples))
    rows = np.arange(num_draws)[:, None] * num_examples
    counts = np.bincount((chosen + rows).ravel(), minlength=num_draws * num_examples)
    return counts.reshape(num_draws, num_examples).astype(float)


def resampled_scores(metric: str, predictions: Array, labels: Array, weights: Array) -> Array:
    """Scores [B, K] in percent points of predictions [K, n] against labels [n], under weights [B, n].

    Raises ValueError for a metric without a formula here.
    """
    if metric not in _FORMULAS:
        raise ValueError(f"metric {metric!r} has no formula; known: {', '.join(sorted(_FORMULAS))}")
    return 100 * _FORMULAS[metric](predictions, labels, weights)


def covariances(metric: str, predictions: Array, labels: Array, weights: Array) -> Array:
    """Covariance [K, K] of the runs' scores over the choice of test examples, in squared percent points.

    The bootstrap's variance is that of n examples drawn out of n, smaller than the population's by (n - 1) / n.
    """
    n = len(labels)
    scores = resampled_scores(metric, predictions, labels, weights)
    return np.atleast_2d(np.cov(scores, rowvar=False)) * n / max(n - 1, 1)


def _accuracy(p: Array, t: Array, w: Array) -> Array:
    return _mean(p == t, w)


def _mean(values: Array, w: Array) -> Array:
    """Weighted means [B, K] of values [K, n]."""
    return (w @ values.T.astype(float)) / w.sum(1, keepdims=True)


def _quotient(part: Array, whole: Array) -> Array:
    """0 where it is not defined; what is smaller than rounding counts as zero."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 1e-12)


def _f1_of(c: float, p: Array, t: Array, w: Array) -> Array:
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
    """Mean over the classes that occur among the predictions or the labels of the draw."""
    total, occurring = np.zeros((len(w), len(p))), np.zeros((len(w), len(p)))
    for c in np.union1d(p, t):
        total += _f1_of(c, p, t, w)
        occurring += _mean((p == c) | (t == c), w) > 0
    return total / occurring


def _matthews(p: Array, t: Array, w: Array) -> Array:
    """Any number of classes (Gorodkin 2004): covariances of class indicators, summed over classes."""
    shared = _mean(p == t, w)
    both, chosen, real = np.zeros_like(shared), np.zeros_like(shared), np.zeros((len(w), 1))
    for c in np.union1d(p, t):
        of_c, truly_c = _mean(p == c, w), _mean((t == c)[None], w)
        both += of_c * truly_c
        chosen += of_c**2
        real += truly_c**2
    return _quotient(shared - both, np.sqrt(np.maximum((1 - chosen) * (1 - real), 0)))


def _pearson(p: Array, t: Array, w: Array) -> Array:
    # Centred first: sums of squares of large values would cancel.
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
    """Ranks [B, n] of the examples within each draw; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    starts = np.searchsorted(values[order], values[first])
    counts = np.add.reduceat(w[:, order], starts, axis=1)
    return (np.cumsum(counts, 1) - (counts - 1) / 2)[:, inverse]


def _row_correlation(a: Array, b: Array, w: Array) -> Array:
    """Pearson correlation of each row of a [B, n] with the same row of b, weighted: [B]."""
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
