"""Reads and checks the user's own data files for a `FileTask`: which rows count, which labels they have."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from search_spaces.language import FileTask
from trainables.tasks.file_tables import SUFFIXES, TAB_SUFFIXES, FileTable, read_table
from trainables.tasks.forms.form import Labels
from trainables.tasks.split_keys import SplitKeys, read_keys
from trainables.tasks.task_data import Task, Texts


@dataclass(frozen=True, kw_only=True)
class FileExamples:
    """The examples of the user's files. `parts` and `keys` are named "train" and, if there are such files, "validation", "test".

    keys: the values of the column by which rows are split; empty if they are split at random.
    """

    parts: Mapping[str, Texts]
    keys: Mapping[str, SplitKeys]
    labels: Labels


def check(task: FileTask, known: Task, folder: Path) -> Labels | None:
    """Check the files before a sweep starts, and return their labels. Raises ValueError as `read` does.

    If a file is Parquet, which takes large libraries to open, only its first bytes are checked, and None is returned.
    """
    packed = [path for path in _paths(task, folder).values() if path.suffix.lower() == ".parquet"]
    for path in packed:
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise ValueError(f"{path}: is no readable Parquet file")
    return None if packed else read(task, known, folder).labels


def read(task: FileTask, known: Task, folder: Path) -> FileExamples:
    """Return the examples of all files. Raises ValueError naming file, column and row of a fault."""
    paths, column = _paths(task, folder), task.group or task.time or ""
    tables = [
        read_table(path, _columns(task), task.encoding, task.header, column, task.separator) for path in paths.values()
    ]
    notes = [note for table in tables if not task.separator and (note := _quotes_note(table))]
    if task.missing == "drop":
        whole, tables = tables, [_complete(table) for table in tables]
        notes += [note for pair in zip(whole, tables, strict=True) if (note := _dropped_note(*pair))]
    for table in tables:
        _check_rows(table, table.columns[:-1])
    labels = known.form.read_labels([table.labels for table in tables], known.metrics[0], task.positive)
    return FileExamples(
        parts={name: _texts(table, own) for name, table, own in zip(paths, tables, labels.values, strict=True)},
        keys={
            name: read_keys(table.path, column, table.keys, table.numbers, task.time is not None)
            for name, table in zip(paths, tables, strict=True)
            if column
        },
        labels=replace(labels, notes=(*notes, *labels.notes)),
    )


def read_texts(
    path: Path, columns: tuple[str, ...], encoding: str, header: tuple[str, ...], separator: str = ""
) -> Texts:
    """Return the texts of a file whose labels are not known; all labels are 0.

    `columns` are (text,) or (text, text_pair); `header` names all columns of a CSV or TSV file without a header line; `separator`
    is as in `FileTask`. Raises ValueError naming file, column and row of a fault.
    """
    _check_path(path)
    table = read_table(path, columns, encoding, header, separator=separator)
    _check_rows(table, columns)
    pairs = [row[1] for row in table.rows] if len(columns) == 2 else None
    return Texts(first=[row[0] for row in table.rows], second=pairs, labels=[0.0] * len(table.rows))


def _columns(task: FileTask) -> tuple[str, ...]:
    return (task.text, task.label) if task.text_pair is None else (task.text, task.text_pair, task.label)


def _paths(task: FileTask, folder: Path) -> dict[str, Path]:
    """Return the paths of the train, validation and test files, without those that the task does not have."""
    names = {"train": task.train, "validation": task.validation, "test": task.test}
    paths = {part: folder / os.path.expanduser(name) for part, name in names.items() if name}
    for path in paths.values():
        _check_path(path, "; relative paths start at the space's folder")
    for (part, path), (other, same) in combinations(paths.items(), 2):
        if path.samefile(same):
            raise ValueError(f"{part} and {other} are the same file {path}")
    return paths


def _check_path(path: Path, hint: str = "") -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: the file's name must end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}{hint}")


def is_missing(value: Any) -> bool:
    """Return whether a cell has no content: nothing, a blank text, or NaN, as pandas writes missing values."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _complete(table: FileTable) -> FileTable:
    """Return the table without the rows that lack a text or label. Raises ValueError if no row is left."""
    lacking = {i for _, cells in table.cells() for i, cell in enumerate(cells) if is_missing(cell)}
    kept = [i for i in range(len(table.rows)) if i not in lacking]
    if not kept:
        raise ValueError(f"{table.path}: no row has both text and label")
    return table.select(kept)


def _dropped_note(table: FileTable, complete: FileTable) -> str:
    number = len(table.rows) - len(complete.rows)
    if not number:
        return ""
    lacking = f"a text, label or {table.key_column!r}" if table.key_column else "a text or label"
    return f"{number} of {len(table.rows)} rows of {table.path.name} lack {lacking} and are dropped"


def _quotes_note(table: FileTable) -> str:
    """Return a sentence if a TSV file looks as if quote marks had been added by a program, as pandas and spreadsheets do."""
    if table.path.suffix.lower() not in TAB_SUFFIXES:
        return ""
    texts = [row[0] for row in table.rows]
    quoted = sum(len(text) > 1 and text[0] == text[-1] == '"' and '""' in text[1:-1] for text in texts)
    if not quoted:
        return ""
    return (
        f"{quoted} of {len(texts)} texts of {table.path.name} are in quote marks and have doubled ones inside, as pandas and "
        "spreadsheets write them; quote marks are text in such files: FileTask(separator='\\t') has them removed"
    )


def _check_rows(table: FileTable, texts: tuple[str, ...]) -> None:
    """Raise ValueError for texts and labels that are missing, and for texts that are not strings or not encodable as UTF-8.

    `texts`: the first columns, which hold texts; if another one follows, it is the label's.
    """
    labelled = len(table.columns) > len(texts)
    for name, cells in table.cells():
        missing = [number for number, cell in zip(table.numbers, cells, strict=True) if is_missing(cell)]
        what = "the label is missing" if labelled and name == table.columns[-1] else "is empty"
        if missing:
            raise ValueError(
                f"{table.path}: {_rows_text(missing)}, column {name!r}: {what}; fill or remove the row"
                f"{'s' if len(missing) > 1 else ''}"
                f"{', or drop such rows with FileTask(missing=' + repr('drop') + ')' if labelled else ''}"
            )
    for place, name in enumerate(texts):
        for number, row in zip(table.numbers, table.rows, strict=True):
            fault = _fault(row[place])
            if fault:
                raise ValueError(f"{table.path}: row {number}, column {name!r}: {fault}")


def _fault(text: Any) -> str:
    """Return what makes a cell unusable as a text, "" if nothing does."""
    if not isinstance(text, str):
        return f"is {text!r}, not a text"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "holds half a character (a lone surrogate)"
    return ""


def _rows_text(numbers: Sequence[int], most: int = 10) -> str:
    """Return "row 6", or "3 rows (6, 10, 41)" with at most `most` numbers."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    more = ", ..." if len(numbers) > most else ""
    return f"{len(numbers)} rows ({', '.join(map(str, numbers[:most]))}{more})"


def _texts(table: FileTable, labels: list[float]) -> Texts:
    pairs = [row[1] for row in table.rows] if len(table.columns) == 3 else None
    return Texts(first=[row[0] for row in table.rows], second=pairs, labels=labels)
