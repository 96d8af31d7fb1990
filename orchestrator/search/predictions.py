"""The files with a final's predictions on the test split, in the sweep's folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from orchestrator.ledger import write_atomic
from search_spaces.records import TestResult, predictions_checksum

log = logging.getLogger(__name__)

FOLDER = "predictions"


def write_predictions(folder: Path, trial_id: str, test: TestResult) -> str:
    """Write the predictions of a trial, and return the path of the file relative to the sweep's `folder`."""
    name = f"{FOLDER}/{trial_id}.json"
    content = {
        "predictions": list(test.predictions),
        "labels": list(test.labels),
        "checksum": predictions_checksum(test.predictions, test.labels),
    }
    write_atomic(folder / name, json.dumps(content))
    return name


def read_predictions(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return (predictions, labels); None if the file is gone or, with a warning, damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        predictions, labels = tuple(stored["predictions"]), tuple(stored["labels"])
        good = len(predictions) == len(labels) and stored.get("checksum") in (
            None,  # as in files of earlier versions
            predictions_checksum(predictions, labels),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read (%s); its trial is trained again", path, error)
        return None
    if not good:
        log.warning("%s is damaged; its trial is trained again", path)
        return None
    return predictions, labels
