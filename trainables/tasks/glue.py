"""GLUE: reads its tasks from the official TSV files or from the Hugging Face Hub. One entry of `ROWS` per task.

Traps of the files: quote marks and "NA" are text, MRPC begins with a byte order mark, CoLA has no header, and RTE's labels are
words. Lines are split at tabs only, so that quote marks and "NA" are kept. GLUE's dev split, called "validation" on the Hub, is
the test split here, because the labels of GLUE's own test split are not public.
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
    """Where the files of one task are, and which of their columns hold what.

    `folder`: name of the task's folder. `width`: number of columns of its TSV files. `columns` and `label`: numbers, from 0, of
    the text columns and of the label column. `header`: names of these columns in the first line; empty if the files have no
    header. `words`: the labels as the files write them, in the order of their class indices on the Hub; empty if labels are
    scores from 0 to 5. `hub_columns`: names of the text columns on the Hub.
    """

    task: Task
    folder: str
    width: int
    columns: tuple[int, ...]
    label: int
    header: tuple[str, ...] = ()
    words: tuple[str, ...] = ("0", "1")
    hub_columns: tuple[str, ...] = ("sentence1", "sentence2")


def _task(name: str, title: str, *metrics: Metric, form: Form = CLASSIFICATION, classes: tuple[str, ...] = ()) -> Task:
    return Task(
        name=name,
        title=title,
        metrics=metrics,
        form=form,
        outputs=form.outputs or len(classes),
        classes=classes,
        source="glue",
        test_source=DEV,
    )


ROWS = (
    GlueTask(
        task=_task("cola", "CoLA", "matthews", "accuracy", classes=("unacceptable", "acceptable")),
        folder="CoLA",
        width=4,
        columns=(3,),
        label=1,
        hub_columns=("sentence",),
    ),
    GlueTask(
        task=_task("mrpc", "MRPC", "accuracy", "f1", classes=("not_equivalent", "equivalent")),
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
        task=_task("rte", "RTE", "accuracy", classes=("entailment", "not_entailment")),
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
    """Check the first lines of the local files. Raises MissingData if a file is missing, ValueError if its layout is wrong.

    Without `data_dir` nothing is checked.
    """
    if data_dir is None:
        return
    for part in ("train", "dev"):
        with _path(row, data_dir, part).open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
            head = [line for line, _ in zip(file, range(3), strict=False)]
        parse(row, _path(row, data_dir, part), "".join(head))


def read(row: GlueTask, data_dir: Path | None, repo: str = HUB) -> tuple[Texts, Texts]:
    """Return (train, dev) of a GLUE task, from files in `data_dir` or, if that is None, from the Hub or its local cache.

    Raises MissingData if the data are not available, ValueError naming file and line if a file has not the official layout.
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
    """Return the file's text. Raises ValueError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def parse(row: GlueTask, path: Path, text: str) -> Texts:
    """Return the examples of a tab-separated file with this text. Raises ValueError naming `path` and the line of a fault."""
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
    """Return the class index or score of a label's text. Raises ValueError, starting with `where`, if it is not valid."""
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
    """Return (train, dev) from the Hub or its local cache. Raises MissingData if the data are in neither."""
    import datasets

    name = row.task.name
    if not datasets.config.HF_HUB_OFFLINE and not Path(repo).is_dir() and not _reachable(datasets.config.HF_ENDPOINT):
        # Without this setting the library would retry for half a minute before it uses its cache.
        datasets.config.HF_HUB_OFFLINE = True
    try:
        parts = datasets.load_dataset(repo, name)
    except Exception as error:  # its type depends on the HTTP library that the Hub's client uses
        cache = os.path.dirname(str(datasets.config.HF_DATASETS_CACHE))
        raise MissingData(
            f"task {name!r}: {repo} is neither reachable nor in the cache {cache} ({type(error).__name__}: {str(error)[:200]}); "
            f"give --data-dir with GLUE's TSV files, or run once with network and copy that folder (HF_HOME names it)"
        ) from None
    train, dev = (_from_hub(row, parts[part]) for part in ("train", "validation"))
    return train, dev


def _reachable(endpoint: str) -> bool:
    """Return whether a server answers at this address within 5 seconds, through the configured proxy if there is one."""
    import ssl
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError as error:
        # A server with a certificate that is not trusted here did answer; the Hub's client may trust the certificate.
        return isinstance(getattr(error, "reason", error), ssl.SSLError)
    return True


def _from_hub(row: GlueTask, part: Any) -> Texts:
    columns = [list(part[name]) for name in row.hub_columns]
    labels = [float(label) for label in part["label"]]
    return Texts(first=columns[0], second=columns[1] if len(columns) > 1 else None, labels=labels)
