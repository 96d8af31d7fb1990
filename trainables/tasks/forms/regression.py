"""The form of regression tasks: the head has one output per example, and the loss is the squared error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainables.tasks.forms.form import Form, LabelColumn, Labels, Metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Number of quantile bins of the targets by which splits are stratified.
BINS = 5


class Regression(Form):
    """Labels, loss, predictions and metrics of regression tasks; `Form` describes the attributes and methods."""

    name = "regression"
    metrics = ("pearson", "spearman")
    always_reported = ("pearson", "spearman")
    outputs = 1
    fingerprint_key = True

    def read_labels(self, columns: Sequence[LabelColumn], metric: Metric, positive: str = "") -> Labels:
        if positive:
            raise ValueError(f"positive = {positive!r}: a regression has no classes")
        return Labels(values=[_targets(column) for column in columns], outputs=self.outputs)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the quantile bin of each target, as integers [n] from 0 to BINS - 1."""
        import numpy as np

        return np.digitize(labels, np.unique(np.quantile(labels, np.arange(1, BINS) / BINS)))

    def constant_outputs(self, train_labels: Sequence[float], num_examples: int, outputs: int) -> np.ndarray:
        """Return outputs [num_examples, outputs] that all equal the mean target of the train split."""
        import numpy as np

        return np.full((num_examples, outputs), np.mean(train_labels), np.float32)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0].astype("float64")

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.squeeze(-1) - labels).square()

    def notes(self, labels: Mapping[str, Sequence[float]], classes: Sequence[str]) -> tuple[str, ...]:
        return ()


REGRESSION = Regression()


def _targets(column: LabelColumn) -> list[float]:
    targets = []
    for index, label in enumerate(column.values):
        try:
            target = math.nan if isinstance(label, bool) else float(label)
        except (TypeError, ValueError):
            target = math.nan
        if not math.isfinite(target) or abs(target) > 1e30:
            raise ValueError(f"{column.where_row(index)}: {label!r} is no finite number")
        targets.append(target)
    if len(set(targets)) < 2:
        raise ValueError(f"{column.where}: every target is {targets[0]}")
    return targets
