"""Predicts for the texts of a file with an exported model, and writes the predictions as CSV.

Columns of a classification: "label", the most likely class, and "probability_<class>" for each class. Of a regression: "value",
in the unit of the task's files.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.export import record as records
from orchestrator.export.predictor import Predictor
from orchestrator.export.record import ExportRecord
from orchestrator.lost_outputs import drop_lost_outputs
from trainables.tasks.files import read_texts
from trainables.tasks.task_data import Texts


def predict(
    folder: Path,
    file: Path,
    *,
    to: Path | None = None,
    base: str | None = None,
    renamed: tuple[str | None, str | None] = (None, None),
    encoding: str | None = None,
    header: tuple[str, ...] | None = None,
    separator: str | None = None,
) -> None:
    """Write one line per text of `file` to `to`, or to standard output.

    `base`: where the pretrained model is, if not where the export says. `renamed`: columns that have other names than in the
    task's files; `encoding`, `header` and `separator` likewise. Raises ValueError for wrong input, EnvironmentUnfit if `to`
    cannot be written, and what `Predictor` raises.
    """
    known = records.read(folder)
    known = replace(
        known,
        encoding=encoding or known.encoding,
        header=known.header if header is None else header,
        separator=known.separator if separator is None else separator,
    )
    texts = _read(known, file, renamed)
    if to is not None and (to.is_dir() or not to.absolute().parent.is_dir()):
        raise ValueError(f"--to {to}: must name a file in a folder that exists")
    _check_writable(to)
    predictor = Predictor(folder, base)
    _write(_lines(predictor, predictor.outputs(texts)), to)


def _read(record: ExportRecord, file: Path, renamed: tuple[str | None, str | None]) -> Texts:
    if renamed[1] is not None and len(record.columns) == 1:
        raise ValueError(f"--text-pair {renamed[1]}: the model was trained on single texts")
    columns = tuple(new or name for name, new in zip(record.columns, renamed, strict=False))
    try:
        return read_texts(file, columns, record.encoding, record.header, record.separator)
    except LookupError:
        raise ValueError(f"--encoding {record.encoding}: Python knows no such encoding") from None
    except ValueError as error:
        # The reader's advice is meant for spaces.
        here = "; here: --text, --text-pair, --header, --separator and --encoding" if "FileTask" in str(error) else ""
        raise ValueError(f"{error}{here}") from None


def _check_writable(to: Path | None) -> None:
    """Raise EnvironmentUnfit if the file cannot be written, before the model is loaded."""
    try:
        if to is not None:
            _unfinished(to).touch()
            _unfinished(to).unlink()
    except OSError as error:
        raise EnvironmentUnfit(f"--to {to}: cannot be written ({error.strerror}); give another place") from None


def _unfinished(to: Path) -> Path:
    return to.with_name(to.name + ".tmp")


def _lines(predictor: Predictor, outputs: np.ndarray) -> Iterator[list[str]]:
    classes, predictions = predictor.record.task.classes, predictor.predictions(outputs)
    if not classes:
        yield ["value"]
        yield from ([f"{value:.9g}"] for value in predictions)
        return
    yield ["label", *(f"probability_{name}" for name in classes)]
    for index, shares in zip(predictions, predictor.probabilities(outputs), strict=True):
        yield [classes[int(index)], *(f"{share:.6f}" for share in shares)]


def _write(lines: Iterable[list[str]], to: Path | None) -> None:
    if to is None:
        try:
            csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen what it wanted
            drop_lost_outputs()
        return
    new = _unfinished(to)
    with new.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    os.replace(new, to)
