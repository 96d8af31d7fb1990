"""SuperGLUE: the tasks that are the classification of a text pair, from the official JSON Lines files or from the Hub.

    BoolQ   a passage and a yes-no question. Passages are long: with the recipe's 128 tokens, many are cut
    CB      CommitmentBank: a premise and a hypothesis; 250 examples to train on, so no score of it is precise
    WiC     two sentences with a word: does it mean the same in both? The word stands before each sentence ("bed: There is ..."),
            in place of the two positions in which the official baseline reads the model

Not here: RTE, which is GLUE's; COPA, where the scores of two choices have to be compared; MultiRC, whose metrics need all answers
to a question; ReCoRD and WSC, whose answers are spans. As in GLUE, the dev split ("val", on the Hub "validation") is the test
split here, because the labels of the test split are not public.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.tasks.forms.form import Metric
from trainables.tasks.hub_tables import read_splits
from trainables.tasks.task_data import MissingData, Task, Texts

HUB = "aps/super_glue"
SPLITS = ("train", "val")
HUB_SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class SuperGlueTask:
    """One task. `folder`: of its files. `words`: the labels in the files, in the order of their class indices on the Hub.

    `fields`: names of the fields that `pair` makes the two texts from.
    """

    task: Task
    folder: str
    fields: tuple[str, ...]
    words: tuple[str | bool, ...]
    pair: Callable[..., tuple[str, str]] = lambda first, second: (first, second)


def _task(name: str, title: str, classes: tuple[str, ...], *metrics: Metric) -> Task:
    return Task(
        name=name,
        title=title,
        metrics=metrics,
        outputs=len(classes),
        source="superglue",
        test_source="SuperGLUE dev",
        classes=classes,
    )


def _word_in_context(word: str, first: str, second: str) -> tuple[str, str]:
    return f"{word}: {first}", f"{word}: {second}"


ROWS = (
    SuperGlueTask(
        task=_task("boolq", "BoolQ", ("no", "yes"), "accuracy"),
        folder="BoolQ",
        fields=("question", "passage"),
        words=(False, True),
    ),
    SuperGlueTask(
        task=_task("cb", "CB", ("entailment", "contradiction", "neutral"), "accuracy", "macro_f1"),
        folder="CB",
        fields=("premise", "hypothesis"),
        words=("entailment", "contradiction", "neutral"),
    ),
    SuperGlueTask(
        task=_task("wic", "WiC", ("another_meaning", "same_meaning"), "accuracy"),
        folder="WiC",
        fields=("word", "sentence1", "sentence2"),
        words=(False, True),
        pair=_word_in_context,
    ),
)


def row(name: str) -> SuperGlueTask:
    return next(row for row in ROWS if row.task.name == name)


def check(row: SuperGlueTask, data_dir: Path | None) -> None:
    """Check the first line of the local files. Raises MissingData if a file is missing, ValueError if its layout is wrong.

    Without `data_dir` nothing is checked.
    """
    for path in _paths(row, data_dir) if data_dir else ():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            _parse(row, path, [file.readline()])


def read(row: SuperGlueTask, data_dir: Path | None, repo: str = HUB) -> tuple[Texts, Texts]:
    """Return (train, dev) of a task, from files in `data_dir` or, if that is None, from the Hub or its local cache.

    Raises MissingData if the data are not available, ValueError naming file and line if a file has not the official layout.
    """
    if data_dir is None:
        files = f"SuperGLUE's {row.folder}/train.jsonl and {row.folder}/val.jsonl"
        train, dev = (
            _from_hub(row, part) for part in read_splits(row.task.name, repo, row.task.name, HUB_SPLITS, files)
        )
        return train, dev
    train, dev = (_parse(row, path, _lines(path)) for path in _paths(row, data_dir))
    return train, dev


def _paths(row: SuperGlueTask, data_dir: Path) -> list[Path]:
    """Return the paths of the train and dev file. Raises MissingData if one of them is missing."""
    paths = [data_dir / row.folder / f"{part}.jsonl" for part in SPLITS]
    for path in paths:
        if not path.is_file():
            raise MissingData(
                f"task {row.task.name!r}: {path} is missing; --data-dir must hold SuperGLUE's own folders "
                f"({row.folder}/train.jsonl, {row.folder}/val.jsonl); without --data-dir the data come from the Hub"
            )
    return paths


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _parse(row: SuperGlueTask, path: Path, lines: list[str]) -> Texts:
    pairs, labels = [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}:{number}: is no JSON object: {line[:80]!r}") from None
        pairs.append(row.pair(*_texts(row, f"{path}:{number}", record)))
        labels.append(_label(row, f"{path}:{number}", record))
    return _examples(pairs, labels)


def _texts(row: SuperGlueTask, where: str, record: object) -> list[str]:
    """Return the texts of one line's record. Raises ValueError, starting with `where`, if one of them is missing."""
    found = [record.get(name) for name in row.fields] if isinstance(record, Mapping) else [None]
    for name, text in zip(row.fields, found, strict=False):
        if not isinstance(text, str):
            raise ValueError(f"{where}: the field {name!r} is missing or no text")
    return [str(text) for text in found]


def _label(row: SuperGlueTask, where: str, record: Mapping[str, Any]) -> float:
    """Return the class index of a record's label. 1 and 0 are not taken for true and false."""
    for index, word in enumerate(row.words):
        if type(record.get("label")) is type(word) and record["label"] == word:
            return float(index)
    allowed = " or ".join(json.dumps(word) for word in row.words)
    raise ValueError(f"{where}: label {str(record.get('label'))[:40]!r}, should be {allowed}")


def _from_hub(row: SuperGlueTask, part: Any) -> Texts:
    texts = zip(*(list(part[name]) for name in row.fields), strict=True)
    return _examples([row.pair(*each) for each in texts], [float(label) for label in part["label"]])


def _examples(pairs: list[tuple[str, str]], labels: list[float]) -> Texts:
    return Texts(first=[first for first, _ in pairs], second=[second for _, second in pairs], labels=labels)
