"""NSMC: Korean film reviews, positive or negative (github.com/e9t/nsmc, CC0), as tasks with 50, 100 or 150 thousand of them.

The files are in random order, so the smaller tasks take the first reviews of the train file. A tenth of them becomes the
validation split, as for every task. A few reviews are empty; they are kept. The files must be in `--data-dir`, because the
Hub's copy is a loading script, which the library `datasets` no longer executes.
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
        classes=("negative", "positive"),
    )
    for number in THOUSANDS
)
LAYOUT = glue.GlueTask(task=TASKS[-1], folder=FOLDER, columns=("document",))


def check(task: Task, data_dir: Path | None) -> None:
    """Check the first two lines of both files. Raises MissingData if a file is missing, ValueError if its layout is wrong.

    Without `data_dir` nothing is checked.
    """
    for path in _paths(task, data_dir) if data_dir else ():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            glue.parse(_layout(task), path, file.readline() + file.readline())


def read(task: Task, data_dir: Path | None) -> tuple[Texts, Texts]:
    """Return (train, test), train cut to the task's size.

    Raises MissingData if a file is missing or `data_dir` is None, ValueError naming file and line if its layout is wrong.
    """
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
    """Return the paths of train and test, in data_dir/nsmc or, if there is no such folder, in data_dir. Raises MissingData."""
    if data_dir is None:
        raise MissingData(
            f"task {task.name!r}: give --data-dir with {FOLDER}/{FILES[0]} and {FOLDER}/{FILES[1]} of e9t/nsmc"
        )
    folder = data_dir / FOLDER if (data_dir / FOLDER).is_dir() else data_dir
    for name in FILES:
        if not (folder / name).is_file():
            raise MissingData(f"task {task.name!r}: {folder / name} is missing; --data-dir must hold {FOLDER}/{name}")
    return [folder / name for name in FILES]
