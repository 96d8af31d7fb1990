"""Reads and checks the user's own data files (CSV, TSV, JSON lines or Parquet) for a `FileTask`.

CSV, TSV and JSON lines are read with the standard library, so that they can be checked completely before large libraries are
imported, and so that "NA" and "null" remain texts. In TSV files quote marks are text, as in GLUE's. Row numbers in messages
count examples from 1.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.language import FileTask
from trainables.tasks.forms.form import Form, LabelColumn
from trainables.tasks.task_data import Texts

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Cells = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class FileTable:
    """The task's columns of one file. `rows` has one tuple per example: (text, label), or (text, text_pair, label)."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Cells]

    @property
    def labels(self) -> LabelColumn:
        return LabelColumn(path=self.path, name=self.columns[-1], values=tuple(row[-1] for row in self.rows))


def check(task: FileTask, form: Form, folder: Path) -> int | None:
    """Check the files before a sweep starts, and return the number of outputs of the head. Raises ValueError as `read` does.

    If a file is Parquet, which takes large libraries to open, only its first bytes are checked, and None is returned.
    """
    paths = _paths(task, folder)
    packed = [path for path in paths if path.suffix.lower() == ".parquet"]
    for path in packed:
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise ValueError(f"{path}: is no readable Parquet file")
    return None if packed else read(task, form, folder)[2]


def read(task: FileTask, form: Form, folder: Path) -> tuple[Texts, Texts | None, int]:
    """Return (train, test or None, number of outputs of the head). Raises ValueError naming file, column and row of a fault."""
    tables = [_table(path, _columns(task)) for path in _paths(task, folder)]
    for table in tables:
        _check_texts(table)
    labels, outputs = form.read_labels([table.labels for table in tables])
    train, *test = (_texts(table, column) for table, column in zip(tables, labels, strict=True))
    return train, test[0] if test else None, outputs


def _columns(task: FileTask) -> tuple[str, ...]:
    return (task.text, task.label) if task.text_pair is None else (task.text, task.text_pair, task.label)


def _paths(task: FileTask, folder: Path) -> list[Path]:
    paths = [folder / name for name in (task.train, task.test) if name]
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"task {task.name!r}: {path}: the file's name must end in {', '.join(SUFFIXES)}")
        if not path.is_file():
            raise ValueError(f"task {task.name!r}: there is no file {path}; relative paths start at the space's folder")
    if len(paths) == 2 and paths[0].samefile(paths[1]):
        raise ValueError(f"task {task.name!r}: train and test are the same file {paths[0]}")
    return paths


def _table(path: Path, columns: tuple[str, ...]) -> FileTable:
    readers = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}
    try:
        rows = list(readers[path.suffix.lower()](path, columns))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    if not rows:
        raise ValueError(f"{path}: has no examples")
    return FileTable(path=path, columns=columns, rows=rows)


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            yield from _separated(path, columns, lines)
        except csv.Error as error:
            raise ValueError(f"{path}:{lines.line_num}: {error}; is a quote mark left open?") from None


def _tsv(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from _separated(path, columns, (line.rstrip("\r\n").split("\t") for line in file))


def _separated(path: Path, columns: tuple[str, ...], lines: Iterator[list[str]]) -> Iterator[Cells]:
    """Yield the values of `columns` in each line after the header. Raises ValueError for a wrong header or number of fields."""
    header = next(lines, [])
    if not header:
        raise ValueError(f"{path}: the file has no header; its first line must name the columns")
    places = [_place(path, header, name) for name in columns]
    for number, fields in enumerate((line for line in lines if line not in ([], [""])), start=1):
        if len(fields) != len(header):
            raise ValueError(f"{path}: row {number} has {len(fields)} fields, the header has {len(header)}")
        yield tuple(fields[place] for place in places)


def _place(path: Path, header: list[str], name: str) -> int:
    """Return the index of a column in the header. Raises ValueError unless the column occurs exactly once."""
    if header.count(name) != 1:
        problem = "stands twice in" if name in header else "is not in"
        raise ValueError(f"{path}: column {name!r} {problem} the header: {', '.join(map(repr, header))[:300]}")
    return header.index(name)


def _jsonl(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate((line for line in file if line.strip()), start=1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: row {number} is not JSON: {error}") from None
            if not isinstance(record, dict):
                raise ValueError(f"{path}: row {number} is no JSON object")
            for name in columns:
                if name not in record:
                    raise ValueError(
                        f"{path}: row {number} has no {name!r}; it has: {', '.join(map(repr, record))[:300]}"
                    )
            yield tuple(record[name] for name in columns)


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    import pyarrow
    import pyarrow.parquet

    try:
        header = pyarrow.parquet.read_schema(path).names
        for name in columns:
            _place(path, header, name)
        table = pyarrow.parquet.read_table(path, columns=list(dict.fromkeys(columns)))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is no readable Parquet file: {str(error)[:200]}") from None
    yield from zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def _check_texts(table: FileTable) -> None:
    """Raise ValueError for a text that is missing, blank, not a string, or not encodable as UTF-8."""
    for place, name in enumerate(table.columns[:-1]):
        for number, row in enumerate(table.rows, start=1):
            text = row[place]
            if not isinstance(text, str) or not text.strip():
                kind = "is empty" if text is None or text == "" or isinstance(text, str) else f"is {text!r}, not a text"
                raise ValueError(f"{table.path}: row {number}, column {name!r}: {kind}; remove or fill the row")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ValueError(
                    f"{table.path}: row {number}, column {name!r}: holds half a character (a lone surrogate)"
                )


def _texts(table: FileTable, labels: list[float]) -> Texts:
    pairs = [row[1] for row in table.rows] if len(table.columns) == 3 else None
    return Texts(first=[row[0] for row in table.rows], second=pairs, labels=labels)
