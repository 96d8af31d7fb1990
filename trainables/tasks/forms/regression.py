"""The form of regression tasks: the head has one output per example, and the loss is the squared error.

The head is trained on standardised targets, z = (y - mean) / std with mean and standard deviation of the train split, and its
outputs are turned back, y = mean + std * z. So a result does not depend on the unit of the targets: with raw ones, the outputs
of a new head, near 0, would need most of the training to reach targets such as years or prices.

Legend: n examples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.tasks.forms.form import Form, LabelColumn, Labels, Metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Number of quantile bins of the targets by which splits are stratified.
BINS = 5
# A model whose predictions have a smaller standard deviation than this fraction of the train targets' has collapsed: it explains
# less than 2 % of the targets' variance, whatever its correlation with them is.
MIN_SPREAD = 0.01
# A number as it is written in many languages, or with a comma between thousands: it is not known which.
WITH_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class Regression(Form):
    """Labels, loss, predictions and metrics of regression tasks; `Form` describes the attributes and methods.

    mean, std: of the targets of the train split, in their unit. The defaults, before the form is fitted, leave targets as they
    are.
    """

    name = "regression"
    metrics = ("pearson", "spearman")
    always_reported = ("pearson", "spearman")
    outputs = 1
    # It was True while targets were not standardised.
    fingerprint_key = "standardised targets"
    label_type = "<f8"

    mean: float = 0.0
    std: float = 1.0

    def read_labels(self, columns: Sequence[LabelColumn], metric: Metric, positive: str = "") -> Labels:
        if positive:
            raise ValueError(f"positive = {positive!r}: a regression has no classes")
        return Labels(values=[_targets(column) for column in columns], outputs=self.outputs)

    def fitted(self, train_labels: Sequence[float]) -> Regression:
        """Return the form with mean and standard deviation of these targets.

        The sums are exact, so that all machines find the same numbers. Raises ValueError if all targets are equal.
        """
        low, high = min(train_labels), max(train_labels)
        if low == high:
            raise ValueError(
                f"every target of the {len(train_labels)} train examples is {low:g}, so there is nothing to learn; take more "
                "of them (train_examples), or other data"
            )
        # Shifted and scaled to [0, 1] first: squares of small differences between large numbers would lose their digits.
        shares = [(target - low) / (high - low) for target in train_labels]
        mean = math.fsum(shares) / len(shares)
        std = math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / len(shares))
        return Regression(mean=low + (high - low) * mean, std=(high - low) * std)

    def encode(self, labels: Sequence[float]) -> np.ndarray:
        """Return the standardised targets, float32 [n]."""
        import numpy as np

        return ((np.asarray(labels, np.float64) - self.mean) / self.std).astype(np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return standardised targets or predictions in the unit of the targets, float64 [n]."""
        values: np.ndarray = self.mean + self.std * encoded.astype("float64")
        return values

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the quantile bin of each target, as integers [n] from 0 to BINS - 1.

        The edges are targets themselves, because interpolated ones would be rounded differently in another unit.
        """
        import numpy as np

        edges = np.quantile(labels, np.arange(1, BINS) / BINS, method="inverted_cdf")
        return np.digitize(labels, np.unique(edges), right=True)

    def constant_outputs(self, train_labels: Sequence[float], num_examples: int, outputs: int) -> np.ndarray:
        """Return outputs [num_examples, outputs] that all equal the mean standardised target of the train split."""
        import numpy as np

        return np.full((num_examples, outputs), self.encode(train_labels).mean(dtype=np.float64), np.float32)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0].astype("float64")

    def collapsed(self, predictions: np.ndarray) -> bool:
        """Return whether standardised predictions [n] hardly differ. A correlation, which ignores their spread, hides that."""
        return bool(predictions.std() < MIN_SPREAD)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.squeeze(-1) - labels).square()

    def notes(self, labels: Mapping[str, Sequence[float]], classes: Sequence[str]) -> tuple[str, ...]:
        return (
            f"targets are standardised for training by the train split's mean {self.mean:.6g} and standard deviation "
            f"{self.std:.6g}; predictions are turned back. In MLflow, loss is in squared standard deviations and "
            "loss_target_units in squared units of the targets",
        )


REGRESSION = Regression()


def _targets(column: LabelColumn) -> list[float]:
    targets = []
    for index, label in enumerate(column.values):
        try:
            target = math.nan if isinstance(label, bool) else float(label)
        except (TypeError, ValueError, OverflowError):
            target = math.nan
        if not math.isfinite(target) or abs(target) > 1e30:
            hint = "; write numbers with a decimal point" if WITH_COMMA.fullmatch(str(label).strip()) else ""
            raise ValueError(f"{column.where_row(index)}: {label!r} is no finite number{hint}")
        targets.append(target)
    if len(set(targets)) < 2:
        raise ValueError(f"{column.where}: every target is {targets[0]}")
    return targets
