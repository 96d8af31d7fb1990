"""GLUE: reads its nine tasks from the official TSV files or from the Hugging Face Hub. One entry of `ROWS` per task.

Traps of the files: quote marks and "NA" are text, MRPC begins with a byte order mark, CoLA has no header, labels are words in
some tasks, MNLI's train and dev files have different columns, and a few questions of QQP contain a line break. Lines are split at
tabs only, so that quote marks and "NA" are kept, and columns are found by the header's names. GLUE's dev split, called
"validation" on the Hub, is the test split here, because the labels of GLUE's own test split are not public. MNLI has two dev
splits, of the genres that are in train ("matched") and of others ("mismatched"): two tasks that are trained alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Metric
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.hub_tables import read_splits
from trainables.tasks.task_data import MissingData, Task, Texts

HUB = "nyu-mll/glue"
DEV = "GLUE dev"
PAIR = ("sentence1", "sentence2")


@dataclass(frozen=True, kw_only=True)
class GlueTask:
    """Where the files of one task are, and which of their columns hold what.

    `folder`: name of the task's folder. `columns` and `label`: names of the text columns and of the label column. `header`: the
    names of all columns if the files have no line with them. `words`: the labels as the files write them, in the order of their
    class indices on the Hub; empty if labels are scores from 0 to 5. `dev`: name of the dev file. `most_broken`: how many lines
    with too few fields a file may have; they are left out, as in the Hub's copy.
    `config`, `hub_columns`, `hub_dev`: the Hub's names of the task, of its text columns and of its dev split.
    """

    task: Task
    folder: str
    columns: tuple[str, ...] = PAIR
    label: str = "label"
    header: tuple[str, ...] = ()
    words: tuple[str, ...] = ("0", "1")
    dev: str = "dev"
    most_broken: int = 0
    config: str = ""
    hub_columns: tuple[str, ...] = PAIR
    hub_dev: str = "validation"


def _task(name: str, title: str, classes: tuple[str, ...], *metrics: Metric) -> Task:
    """Return a classification task. `classes`: names of its classes, by index."""
    return Task(
        name=name,
        title=title,
        metrics=metrics,
        form=CLASSIFICATION,
        outputs=len(classes),
        source="glue",
        test_source=DEV,
        classes=classes,
    )


def _mnli(name: str, title: str, part: str) -> GlueTask:
    """Return one of the two tasks of MNLI. `part`: "matched" or "mismatched"."""
    words = ("entailment", "neutral", "contradiction")
    return GlueTask(
        task=_task(name, title, words, "accuracy"),
        folder="MNLI",
        label="gold_label",
        words=words,
        dev=f"dev_{part}",
        config="mnli",
        hub_columns=("premise", "hypothesis"),
        hub_dev=f"validation_{part}",
    )


ROWS = (
    GlueTask(
        task=_task("cola", "CoLA", ("unacceptable", "acceptable"), "matthews", "accuracy"),
        folder="CoLA",
        columns=("sentence",),
        header=("source", "label", "mark", "sentence"),
        hub_columns=("sentence",),
    ),
    GlueTask(
        task=_task("mrpc", "MRPC", ("not_equivalent", "equivalent"), "accuracy", "f1"),
        folder="MRPC",
        columns=("#1 String", "#2 String"),
        label="Quality",
    ),
    GlueTask(
        task=Task(
            name="stsb",
            title="STS-B",
            metrics=("pearson", "spearman"),
            form=REGRESSION,
            outputs=1,
            source="glue",
            test_source=DEV,
        ),
        folder="STS-B",
        label="score",
        words=(),
    ),
    GlueTask(
        task=_task("rte", "RTE", ("entailment", "not_entailment"), "accuracy"),
        folder="RTE",
        words=("entailment", "not_entailment"),
    ),
    GlueTask(
        task=_task("sst2", "SST-2", ("negative", "positive"), "accuracy"),
        folder="SST-2",
        columns=("sentence",),
        hub_columns=("sentence",),
    ),
    GlueTask(
        task=_task("qqp", "QQP", ("not_duplicate", "duplicate"), "accuracy", "f1"),
        folder="QQP",
        columns=("question1", "question2"),
        label="is_duplicate",
        most_broken=100,
        hub_columns=("question1", "question2"),
    ),
    _mnli("mnli", "MNLI-m", "matched"),
    _mnli("mnli_mm", "MNLI-mm", "mismatched"),
    GlueTask(
        task=_task("qnli", "QNLI", ("entailment", "not_entailment"), "accuracy"),
        folder="QNLI",
        columns=("question", "sentence"),
        words=("entailment", "not_entailment"),
        hub_columns=("question", "sentence"),
    ),
    GlueTask(
        task=_task("wnli", "WNLI", ("not_entailment", "entailment"), "accuracy"),
        folder="WNLI",
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
    for path in _paths(row, data_dir):
        with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
            head = [line for line, _ in zip(file, range(3), strict=False)]
        parse(row, path, "".join(head))


def read(row: GlueTask, data_dir: Path | None, repo: str = HUB) -> tuple[Texts, Texts]:
    """Return (train, dev) of a GLUE task, from files in `data_dir` or, if that is None, from the Hub or its local cache.

    Raises MissingData if the data are not available, ValueError naming file and line if a file has not the official layout.
    """
    if data_dir is None:
        config = row.config or row.task.name
        parts = read_splits(row.task.name, repo, config, ("train", row.hub_dev), "GLUE's TSV files")
        train, dev = (_from_hub(row, part) for part in parts)
    else:
        train, dev = (parse(row, path, text_of(path)) for path in _paths(row, data_dir))
    return train, dev


def _paths(row: GlueTask, data_dir: Path) -> list[Path]:
    """Return the paths of the train and dev file. Raises MissingData if one of them is missing."""
    names = [f"{row.folder}/{part}.tsv" for part in ("train", row.dev)]
    for name in names:
        if not (data_dir / name).is_file():
            raise MissingData(
                f"task {row.task.name!r}: {data_dir / name} is missing; --data-dir must hold GLUE's own folders "
                f"({', '.join(names)}); without --data-dir the data come from the Hub"
            )
    return [data_dir / name for name in names]


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
    header = row.header or tuple(name.strip() for name in lines[0].split("\t"))
    places = [_place(path, header, name) for name in (*row.columns, row.label)]
    first_line = 1 if row.header else 2
    rows, labels, broken = [], [], 0
    for number, line in enumerate(lines[first_line - 1 :], start=first_line):
        fields = line.split("\t")
        if len(fields) < len(header) and broken < row.most_broken:
            broken += 1
            continue
        if len(fields) != len(header):
            raise ValueError(f"{path}:{number}: {len(fields)} tab-separated fields instead of {len(header)}")
        *texts, label = (fields[place] for place in places)
        rows.append(texts)
        labels.append(_label(row, f"{path}:{number}", label))
    if not labels:
        raise ValueError(f"{path}: has no examples")
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Texts(first=columns[0], second=columns[1] if len(columns) > 1 else None, labels=labels)


def _place(path: Path, header: tuple[str, ...], name: str) -> int:
    """Return the number, from 0, of the column with this name."""
    if name not in header:
        raise ValueError(f"{path}:1: no column is named {name!r}; the first line has: {', '.join(header)[:200]}")
    return header.index(name)


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


def _from_hub(row: GlueTask, part: Any) -> Texts:
    columns = [list(part[name]) for name in row.hub_columns]
    labels = [float(label) for label in part["label"]]
    return Texts(first=columns[0], second=columns[1] if len(columns) > 1 else None, labels=labels)
