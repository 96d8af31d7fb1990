"""NSMC: Korean film reviews, positive or negative (github.com/e9t/nsmc, CC0), with 50, 100 or 150 thousand to train on.

The files are in random order, so that a smaller task is the beginning of the larger one's train file. A tenth of it becomes the
validation split, as for every task. A few reviews are empty and stay so. Read from `--data-dir`: the Hub's copy is a script,
which the library no longer runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainables.tasks import glue
from trainables.tasks.task_data import MissingData, Task, Texts

FOLDER = "nsmc"
FILES = ("ratings_train.txt", "ratings_test.txt")
THOUSANDS = (50, 100, 150)

TASKS = tuple(
    Task(
        name=f"nsmc_{number}k",
        title=f"NSMC, {number}k",
        metrics=("accuracy", "precision", "recall", "f1"),
        source="nsmc",
        test_source="NSMC test",
    )
    for number in THOUSANDS
)
LAYOUT = glue.GlueTask(task=TASKS[-1], folder=FOLDER, width=3, columns=(1,), label=2, header=("document", "label"))


def check(task: Task, data_dir: Path | None) -> None:
    """Cheap look at the files: MissingData when one is absent, ValueError when its header is not the official one."""
    for path in _paths(task, data_dir) if data_dir else ():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            glue.parse(_layout(task), path, file.readline() + file.readline())


def read(task: Task, data_dir: Path | None) -> tuple[Texts, Texts]:
    """(the first so many thousand of train, test). Raises as `check`, and ValueError naming file and line."""
    train, test = (glue.parse(_layout(task), path, glue.text_of(path)) for path in _paths(task, data_dir))
    number = 1000 * THOUSANDS[TASKS.index(task)]
    if len(train) < number:
        raise ValueError(
            f"task {task.name!r}: {data_dir}/{FOLDER}/{FILES[0]} has only {len(train)} of {number} reviews"
        )
    return train.take(tuple(range(number))), test


def _layout(task: Task) -> glue.GlueTask:
    return replace(LAYOUT, task=task)


def _paths(task: Task, data_dir: Path | None) -> list[Path]:
    """The two files, in a folder of the data set's name or in the given one itself."""
    if data_dir is None:
        raise MissingData(
            f"task {task.name!r}: give --data-dir with {FOLDER}/{FILES[0]} and {FOLDER}/{FILES[1]} of e9t/nsmc"
        )
    folder = data_dir / FOLDER if (data_dir / FOLDER).is_dir() else data_dir
    for name in FILES:
        if not (folder / name).is_file():
            raise MissingData(f"task {task.name!r}: {folder / name} is missing; --data-dir must hold {FOLDER}/{name}")
    return [folder / name for name in FILES]
