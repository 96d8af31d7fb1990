"""Simulated test results whose true scores are known: methods that differ in nothing, seeds and examples drawn afresh.

Every example has a difficulty that all methods share, one that the seeds of a method share, and one of its own; a seed shifts
what its model does everywhere. `truth` is the score's mean over all seeds, on infinitely many examples, in percent points;
`spread` is the standard deviation of a seed's true score, in percent points.

Legend: M methods, S seeds, n examples.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)  # integrals over a standard normal variable
WEIGHTS = WEIGHTS / WEIGHTS.sum()
SHARED, METHOD = 0.5, 0.25  # shares of an example's variance; the rest is each run's own


@dataclass(frozen=True)
class World:
    """`shift`: standard deviation of what a seed does to its model, in the unit of the noise."""

    shift: float

    @property
    def truth(self):
        return float(WEIGHTS @ self.of_seed(self.shift * POINTS))

    @property
    def spread(self):
        return float(np.sqrt(WEIGHTS @ (self.of_seed(self.shift * POINTS) - self.truth) ** 2))

    def draw(self, generator, methods, seeds, examples):
        """Predictions [M * S, n] and labels [n]."""
        labels = self.labels(generator, examples)
        own = 1 - SHARED - METHOD
        noise = (
            np.sqrt(SHARED) * generator.normal(size=examples)
            + np.sqrt(METHOD) * generator.normal(size=(methods, 1, examples))
            + np.sqrt(own) * generator.normal(size=(methods, seeds, examples))
        )
        shift = self.shift * generator.normal(size=(methods, seeds, 1))
        return self.predict(labels, noise, shift).reshape(methods * seeds, examples).astype(float), labels


class Accuracy(World):
    """A binary task with balanced classes: right when a standard normal margin exceeds -1, moved by the seed."""

    metric = "accuracy"

    def of_seed(self, shift):
        return 100 * stats.norm.cdf(1.0 + shift)

    def labels(self, generator, examples):
        return (generator.random(examples) < 0.5).astype(float)

    def predict(self, labels, noise, shift):
        return np.where(1.0 + shift + noise > 0, labels, 1 - labels)


class Matthews(World):
    """CoLA's imbalance: 69 % positive; a seed makes its model more or less sensitive."""

    metric = "matthews"
    positive = 0.69

    def of_seed(self, shift):
        q = self.positive
        hits, alarms = stats.norm.cdf(0.9 + shift), stats.norm.cdf(-0.6 - shift)
        chosen = q * hits + (1 - q) * alarms
        return 100 * (q * hits - q * chosen) / np.sqrt(q * (1 - q) * chosen * (1 - chosen))

    def labels(self, generator, examples):
        return (generator.random(examples) < self.positive).astype(float)

    def predict(self, labels, noise, shift):
        return np.where(labels == 1, 0.9 + shift, -0.6 - shift) + noise > 0


class Pearson(World):
    """STS-B's level, about 90: the prediction is the label with noise, and a seed makes the noise larger or smaller."""

    metric = "pearson"

    def of_seed(self, shift):
        return 100 / np.sqrt(1 + (0.5 * np.exp(shift)) ** 2)

    def labels(self, generator, examples):
        return generator.normal(size=examples)

    def predict(self, labels, noise, shift):
        return labels + 0.5 * np.exp(shift) * noise
