"""The file export.json of an exported model: what `predict` needs to know beside the tensors, and where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from orchestrator.ledger import Damaged
from search_spaces.language import FileTask
from search_spaces.records import Trial
from trainables.tasks import TASKS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.regression import REGRESSION, Regression
from trainables.tasks.task_data import Task
from trainables.tasks.task_loading import text_columns

FILE = "export.json"
FORMAT = 1
# peft: a folder of the library peft. transformers: a whole model. own: tensors that only this project's loader uses.
ExportKind = Literal["peft", "transformers", "own"]


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """The content of export.json.

    `weights`: name of the file with the tensors, and `digest` its SHA-256. `source`: the pretrained model, a folder or a name of
    the Hub; its fingerprint is `trial.weights`. `task`: its form turns the head's outputs into predictions. `columns`: those of
    the texts in the task's files, one or two. `encoding`, `header` and `separator` are those of the task's files (`FileTask`).
    """

    kind: ExportKind
    weights: str
    digest: str
    source: str
    trial: Trial
    task: Task
    columns: tuple[str, ...]
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()
    separator: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **vars(self),
            "trial": self.trial.to_json(),
            "task": self.task.to_record(),
            "max_length": self.trial.recipe.max_length,
        }


def read(folder: Path) -> ExportRecord:
    """Return the record of an exported model. Raises ValueError if the folder holds none, Damaged if its files are damaged."""
    path = folder / FILE
    if not path.is_file():
        what = "has no export.json" if folder.is_dir() else "is no folder"
        raise ValueError(f"{folder} {what}; give a folder that `peft-sweep export` has written")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"{path}: has format {found['format']!r}, which this version does not know")
        record = ExportRecord(
            kind=found["kind"],
            weights=found["weights"],
            digest=found["digest"],
            source=found["source"],
            trial=Trial.from_json(found["trial"]),
            task=Task.from_record(found["task"]),
            columns=tuple(found["columns"]),
            encoding=found["encoding"],
            header=tuple(found["header"]),
            separator=found["separator"],
        )
        if record.kind not in get_args(ExportKind) or Path(record.weights).name != record.weights:
            raise KeyError("kind or weights")
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Damaged(f"{path} cannot be read ({type(error).__name__}: {error}); export the model again") from None
    weights = folder / record.weights
    if not weights.is_file() or digest(weights) != record.digest:
        raise Damaged(f"{weights} is missing or damaged: it is not the file that was exported; export the model again")
    return record


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def task_of(manifest: Mapping[str, Any], name: str) -> Task:
    """Return the task of a sweep, fitted to its train labels. Raises ValueError if its classes have no names."""
    facts = manifest["tasks"][name]
    regression = facts["score"] in REGRESSION.metrics
    classes = tuple(facts.get("classes") or (TASKS[name].classes if name in TASKS else ()))
    if not classes and not regression:
        raise ValueError(
            f"task {name!r}: this sweep was run by a version that did not record the names of classes; run it again with this one"
        )
    return Task(
        name=name,
        title=facts["title"],
        metrics=tuple(facts["metrics"]),
        form=Regression(**facts.get("targets", {})) if regression else CLASSIFICATION,
        outputs=len(classes) or 1,
        source=TASKS[name].source if name in TASKS else "files",
        test_source=facts["test_source"],
        classes=classes,
        positive=facts.get("positive", ""),
    )


def file_task_of(manifest: Mapping[str, Any], name: str) -> FileTask | None:
    """Return the description of a task in the user's own files, None for a built-in task."""
    for task in manifest["resolved"]["tasks"]:
        if isinstance(task, dict) and task["name"] == name:
            return FileTask(**{**task, "header": tuple(task.get("header", ()))})
    return None


def with_columns(record: ExportRecord, manifest: Mapping[str, Any]) -> ExportRecord:
    """Return the record with what is needed to read files like the task's."""
    files = file_task_of(manifest, record.task.name)
    if files is None:
        return replace(record, columns=text_columns(record.task.name))
    columns = (files.text,) if files.text_pair is None else (files.text, files.text_pair)
    return replace(record, columns=columns, encoding=files.encoding, header=files.header, separator=files.separator)
