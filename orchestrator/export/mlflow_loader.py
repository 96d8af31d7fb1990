"""Loads an exported model for MLflow: `mlflow.pyfunc.load_model` calls `_load_pyfunc`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from orchestrator.export.predictor import Predictor
from trainables.tasks.task_data import Texts


class ExportedModel:
    """An exported model with the interface that MLflow asks for."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor

    def predict(self, table: pd.DataFrame, params: object = None) -> pd.DataFrame:
        """Return the label and the probability of each class, or the value, for each row of a table with the text columns."""
        record = self._predictor.record
        first, *second = [table[name].astype(str).tolist() for name in record.columns]
        texts = Texts(first=first, second=second[0] if second else None, labels=[0.0] * len(table))
        outputs = self._predictor.outputs(texts)
        predictions, classes = self._predictor.predictions(outputs), record.task.classes
        if not classes:
            return pd.DataFrame({"value": predictions})
        shares = self._predictor.probabilities(outputs)
        found = {f"probability_{name}": shares[:, index] for index, name in enumerate(classes)}
        return pd.DataFrame({"label": [classes[int(index)] for index in predictions], **found})


def _load_pyfunc(path: str) -> ExportedModel:
    return ExportedModel(Predictor(Path(path)))
