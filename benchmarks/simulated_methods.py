"""Simulated test results whose true scores are known: methods that differ in nothing, seeds and examples drawn afresh.

Every example has a difficulty that all methods share, one that the seeds of a method share, and one of its own; a seed shifts
what its model does everywhere, and collapses with a given probability: it then predicts the same for every example.

Legend: M methods, S seeds, n examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import stats

Array = np.ndarray
Tails = Literal["normal", "t3"]
QUANTILES = (np.arange(20_000) + 0.5) / 20_000
SHARED, METHOD = 0.5, 0.25  # shares of an example's variance; the rest is each run's own
CONSTANT = 1.0  # what a collapsed seed predicts


@dataclass(frozen=True)
class SimulatedTask:
    """A task on which all methods have the same true score.

    shift: standard deviation of what a seed does to its model, in the unit of the noise.
    tails: normal, or Student's t with 3 degrees of freedom, of the same standard deviation.
    risk: probability that a seed collapses.
    """

    shift: float
    tails: Tails = "normal"
    risk: float = 0.0

    metric = ""
    collapsed_score = 0.0  # percent points

    def of_seed(self, shift: Array) -> Array:
        """Return the true scores, in percent points, of seeds that do not collapse, on infinitely many examples."""
        raise NotImplementedError

    def labels(self, generator: np.random.Generator, examples: int) -> Array:
        raise NotImplementedError

    def predict(self, labels: Array, noise: Array, shift: Array) -> Array:
        raise NotImplementedError

    @cached_property
    def true_without_collapse(self) -> float:
        """Mean true score over all seeds that do not collapse, percent points."""
        return float(self._true_scores.mean())

    @property
    def truth(self) -> float:
        """Mean true score over all seeds, percent points."""
        return (1 - self.risk) * self.true_without_collapse + self.risk * self.collapsed_score

    @property
    def spread(self) -> float:
        """Standard deviation of the true score between seeds that do not collapse, percent points."""
        return float(self._true_scores.std())

    @cached_property
    def _true_scores(self) -> Array:
        quantiles = stats.norm.ppf(QUANTILES) if self.tails == "normal" else stats.t.ppf(QUANTILES, 3) / np.sqrt(3)
        return self.of_seed(self.shift * quantiles)

    def draw(
        self, generator: np.random.Generator, methods: int, seeds: int, examples: int
    ) -> tuple[Array, Array, Array]:
        """Return predictions [M * S, n], labels [n], and whether a seed collapsed [M, S]."""
        labels = self.labels(generator, examples)
        own = 1 - SHARED - METHOD
        noise = (
            np.sqrt(SHARED) * generator.normal(size=examples)
            + np.sqrt(METHOD) * generator.normal(size=(methods, 1, examples))
            + np.sqrt(own) * generator.normal(size=(methods, seeds, examples))
        )
        size = (methods, seeds, 1)
        one = generator.normal(size=size) if self.tails == "normal" else generator.standard_t(3, size) / np.sqrt(3)
        collapsed = generator.random((methods, seeds)) < self.risk
        predictions = np.where(
            collapsed[:, :, None], CONSTANT, self.predict(labels, noise, self.shift * one).astype(float)
        )
        return predictions.reshape(methods * seeds, examples), labels, collapsed


class Accuracy(SimulatedTask):
    """A binary task with balanced classes: right when a standard normal margin exceeds -1, moved by the seed."""

    metric = "accuracy"
    collapsed_score = 50.0

    def of_seed(self, shift: Array) -> Array:
        return 100 * stats.norm.cdf(1.0 + shift)

    def labels(self, generator: np.random.Generator, examples: int) -> Array:
        return (generator.random(examples) < 0.5).astype(float)

    def predict(self, labels: Array, noise: Array, shift: Array) -> Array:
        return np.where(1.0 + shift + noise > 0, labels, 1 - labels)


class Matthews(SimulatedTask):
    """CoLA's imbalance: 69 % positive; a seed makes its model more or less sensitive."""

    metric = "matthews"
    positive = 0.69

    def of_seed(self, shift: Array) -> Array:
        q = self.positive
        hits, alarms = stats.norm.cdf(0.9 + shift), stats.norm.cdf(-0.6 - shift)
        chosen = q * hits + (1 - q) * alarms
        return 100 * (q * hits - q * chosen) / np.sqrt(q * (1 - q) * chosen * (1 - chosen))

    def labels(self, generator: np.random.Generator, examples: int) -> Array:
        return (generator.random(examples) < self.positive).astype(float)

    def predict(self, labels: Array, noise: Array, shift: Array) -> Array:
        return np.where(labels == 1, 0.9 + shift, -0.6 - shift) + noise > 0


class Pearson(SimulatedTask):
    """STS-B's level, about 90: the prediction is the label with noise, and a seed makes the noise larger or smaller."""

    metric = "pearson"

    def of_seed(self, shift: Array) -> Array:
        return 100 / np.sqrt(1 + (0.5 * np.exp(shift)) ** 2)

    def labels(self, generator: np.random.Generator, examples: int) -> Array:
        return generator.normal(size=examples)

    def predict(self, labels: Array, noise: Array, shift: Array) -> Array:
        return labels + 0.5 * np.exp(shift) * noise
