"""GLUE: where each task's files and columns are, in the official TSV layout and on the Hub. One row per task.

Traps of the files: quote marks are text, "NA" is text, MRPC begins with a byte order mark, CoLA has no header, and RTE's
labels are words. They are read by splitting lines at tabs, which keeps all of that as it is. The Hub calls the dev split
"validation"; it is the test split here, because GLUE's own test labels are not public.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Form, Metric
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.task_data import MissingData, Task, Texts

HUB = "nyu-mll/glue"
DEV = "GLUE dev"


@dataclass(frozen=True, kw_only=True)
class GlueTask:
    """One task. Columns are numbers in the TSV files and names on the Hub.

    `header` holds what the first line must contain at these columns; empty for a file without a header. `words` maps
    labels that are words to class indices, in the Hub's order; it is empty where labels are scores from 0 to 5.
    """

    task: Task
    folder: str
    width: int
    columns: tuple[int, ...]
    label: int
    header: tuple[str, ...] = ()
    words: tuple[str, ...] = ("0", "1")
    hub_columns: tuple[str, ...] = ("sentence1", "sentence2")


def _task(name: str, title: str, *metrics: Metric, form: Form = CLASSIFICATION) -> Task:
    return Task(
        name=name,
        title=title,
        metrics=metrics,
        form=form,
        outputs=form.outputs or 2,
        source="glue",
        test_source=DEV,
    )


ROWS = (
    GlueTask(
        task=_task("cola", "CoLA", "matthews", "accuracy"),
        folder="CoLA",
        width=4,
        columns=(3,),
        label=1,
        hub_columns=("sentence",),
    ),
    GlueTask(
        task=_task("mrpc", "MRPC", "accuracy", "f1"),
        folder="MRPC",
        width=5,
        columns=(3, 4),
        label=0,
        header=("#1 String", "#2 String", "Quality"),
    ),
    GlueTask(
        task=_task("stsb", "STS-B", "pearson", "spearman", form=REGRESSION),
        folder="STS-B",
        width=10,
        columns=(7, 8),
        label=9,
        header=("sentence1", "sentence2", "score"),
        words=(),
    ),
    GlueTask(
        task=_task("rte", "RTE", "accuracy"),
        folder="RTE",
        width=4,
        columns=(1, 2),
        label=3,
        header=("sentence1", "sentence2", "label"),
        words=("entailment", "not_entailment"),
    ),
)


def row(name: str) -> GlueTask:
    return next(row for row in ROWS if row.task.name == name)


def check(row: GlueTask, data_dir: Path | None) -> None:
    """Cheap look at the local files: MissingData when one is absent, ValueError when it is not the official one."""
    if data_dir is None:
        return
    for part in ("train", "dev"):
        with _path(row, data_dir, part).open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
            head = [line for line, _ in zip(file, range(3), strict=False)]
        parse(row, _path(row, data_dir, part), "".join(head))


def read(row: GlueTask, data_dir: Path | None, repo: str = HUB) -> tuple[Texts, Texts]:
    """(train, dev) of a GLUE task, from local files or, without a folder, from the Hub or its cache.

    Raises MissingData when they cannot be had, ValueError naming file and line when one is not the official one.
    """
    if data_dir is None:
        return _read_hub(row, repo)
    paths = [_path(row, data_dir, part) for part in ("train", "dev")]
    train, dev = (parse(row, path, text_of(path)) for path in paths)
    return train, dev


def _path(row: GlueTask, data_dir: Path, part: str) -> Path:
    path = data_dir / row.folder / f"{part}.tsv"
    if not path.is_file():
        raise MissingData(
            f"task {row.task.name!r}: {path} is missing; --data-dir must hold GLUE's own folders ({row.folder}/train.tsv, "
            f"{row.folder}/dev.tsv); without --data-dir the data come from the Hub"
        )
    return path


def text_of(path: Path) -> str:
    """The file's text; ValueError when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def parse(row: GlueTask, path: Path, text: str) -> Texts:
    """The examples of a tab-separated file; ValueError names file and line."""
    # Not splitlines(): it also breaks at characters such as U+2028 that may stand inside a sentence.
    lines = text.removesuffix("\n").replace("\r\n", "\n").split("\n")
    if row.header:
        _check_header(row, path, lines[0].split("\t"))
    first_line = 2 if row.header else 1
    texts: list[list[str]] = [[] for _ in row.columns]
    labels = []
    for number, line in enumerate(lines[first_line - 1 :], start=first_line):
        fields = line.split("\t")
        if len(fields) != row.width:
            raise ValueError(f"{path}:{number}: {len(fields)} tab-separated fields instead of {row.width}")
        for column, field in zip(texts, row.columns, strict=True):
            column.append(fields[field])
        labels.append(_label(row, f"{path}:{number}", fields[row.label]))
    if not labels:
        raise ValueError(f"{path}: has no examples")
    return Texts(first=texts[0], second=texts[1] if len(texts) > 1 else None, labels=labels)


def _check_header(row: GlueTask, path: Path, found: list[str]) -> None:
    for name, column in zip(row.header, (*row.columns, row.label), strict=True):
        if column >= len(found) or found[column].strip() != name:
            raise ValueError(
                f"{path}:1: column {column + 1} should be {name!r}; the first line has: {', '.join(found)[:200]}"
            )


def _label(row: GlueTask, where: str, text: str) -> float:
    if row.words:
        if text.strip() not in row.words:
            raise ValueError(f"{where}: label {text[:40]!r}, should be {' or '.join(row.words)}")
        return float(row.words.index(text.strip()))
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 5:
        raise ValueError(f"{where}: score {text[:40]!r}, should be a number between 0 and 5")
    return score


def _read_hub(row: GlueTask, repo: str) -> tuple[Texts, Texts]:
    import datasets

    name = row.task.name
    if not datasets.config.HF_HUB_OFFLINE and not Path(repo).is_dir() and not _reachable(datasets.config.HF_ENDPOINT):
        # Goes straight to the cache: the library itself would retry for half a minute first.
        datasets.config.HF_HUB_OFFLINE = True
    try:
        parts = datasets.load_dataset(repo, name)
    except Exception as error:  # of whichever http library the Hub's client stands on
        cache = os.path.dirname(str(datasets.config.HF_DATASETS_CACHE))
        raise MissingData(
            f"task {name!r}: {repo} is neither reachable nor in the cache {cache} ({type(error).__name__}: {str(error)[:200]}); "
            f"give --data-dir with GLUE's TSV files, or run once with network and copy that folder (HF_HOME names it)"
        ) from None
    train, dev = (_from_hub(row, parts[part]) for part in ("train", "validation"))
    return train, dev


def _reachable(endpoint: str) -> bool:
    """Whether anything answers there, through the proxy where one is set."""
    import ssl
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError as error:
        # A certificate that only the Hub's own client trusts is for that client to judge.
        return isinstance(getattr(error, "reason", error), ssl.SSLError)
    return True


def _from_hub(row: GlueTask, part: Any) -> Texts:
    columns = [list(part[name]) for name in row.hub_columns]
    labels = [float(label) for label in part["label"]]
    return Texts(first=columns[0], second=columns[1] if len(columns) > 1 else None, labels=labels)
