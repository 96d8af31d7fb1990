"""The user's own tables as a task: CSV, TSV, JSON lines, Parquet; what must hold of them, and what to say when it does not.

CSV, TSV and JSON lines are read with the standard library, so that they are checked in full before anything heavy starts,
and so that "NA" and "null" stay texts. TSV is read with quoting off, as GLUE's is. Row numbers count examples from 1.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.language import FileTask
from trainables.tasks.task_data import Texts

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# A label that occurs, on average, fewer times than this is no class but a number or an identifier.
MIN_PER_CLASS = 2

Cells = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class FileTable:
    """The named columns of one file: one tuple (text, [text_pair], label) per example."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Cells]


def check(task: FileTask, folder: Path) -> int | None:
    """Find what is wrong with the files, early, and return the number of outputs.

    None where a file is Parquet: opening it takes heavy imports, only its first bytes are looked at. Raises as `read`.
    """
    paths = _paths(task, folder)
    packed = [path for path in paths if path.suffix.lower() == ".parquet"]
    for path in packed:
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise ValueError(f"{path}: is no readable Parquet file")
    return None if packed else read(task, folder)[2]


def read(task: FileTask, folder: Path) -> tuple[Texts, Texts | None, int]:
    """(train, test or None, number of outputs). Raises ValueError naming file, column and row."""
    tables = [_table(path, _columns(task)) for path in _paths(task, folder)]
    for table in tables:
        _check_texts(table)
    if task.regression:
        labels = [_targets(table) for table in tables]
        outputs = 1
    else:
        words = [_words(table) for table in tables]
        classes = _classes(tables, words)
        labels = [[float(classes.index(word)) for word in column] for column in words]
        outputs = len(classes)
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
    header = next(lines, [])
    if not header:
        raise ValueError(f"{path}: the file has no header; its first line must name the columns")
    places = [_place(path, header, name) for name in columns]
    for number, fields in enumerate((line for line in lines if line not in ([], [""])), start=1):
        if len(fields) != len(header):
            raise ValueError(f"{path}: row {number} has {len(fields)} fields, the header has {len(header)}")
        yield tuple(fields[place] for place in places)


def _place(path: Path, header: list[str], name: str) -> int:
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


def _words(table: FileTable) -> list[str]:
    """Class names as texts: 1, 1.0 and "1" are one class."""
    words = []
    for number, row in enumerate(table.rows, start=1):
        label = row[-1]
        whole = isinstance(label, float) and label.is_integer()
        word = str(int(label)) if whole else "" if label is None else str(label).strip()
        where = f"{table.path}: row {number}, column {table.columns[-1]!r}"
        if word in ("", "-1", "nan"):
            raise ValueError(f"{where}: the label is missing ({label!r}); remove the row")
        if isinstance(label, float | dict | list) and not whole:
            raise ValueError(f"{where}: {label!r} is no class; for numbers set regression=True")
        words.append(word)
    return words


def _classes(tables: list[FileTable], words: list[list[str]]) -> list[str]:
    """Sorted class names, numbers by value; refused unless there are two or more, the same in every file."""
    known = [Counter(column) for column in words]
    for table, counts in zip(tables, known, strict=True):
        where = f"{table.path}: column {table.columns[-1]!r}"
        if len(counts) < 2:
            raise ValueError(f"{where}: every label is {next(iter(counts))!r}; a task needs at least two classes")
        if table is tables[0] and len(counts) * MIN_PER_CLASS > len(table.rows):
            raise ValueError(
                f"{where}: {len(counts)} different labels in {len(table.rows)} rows; for numbers set regression=True"
            )
    for word in sorted(set(known[0]) ^ set(known[-1])):
        there, missing = (tables[0], tables[-1]) if word in known[0] else (tables[-1], tables[0])
        raise ValueError(
            f"{there.path}: label {word!r} of column {there.columns[-1]!r} does not occur in {missing.path}"
        )
    numeric = all(word.lstrip("-").isdecimal() for word in known[0])
    return sorted(known[0], key=int) if numeric else sorted(known[0])


def _targets(table: FileTable) -> list[float]:
    targets = []
    for number, row in enumerate(table.rows, start=1):
        try:
            target = math.nan if isinstance(row[-1], bool) else float(row[-1])
        except (TypeError, ValueError):
            target = math.nan
        if not math.isfinite(target) or abs(target) > 1e30:
            raise ValueError(
                f"{table.path}: row {number}, column {table.columns[-1]!r}: {row[-1]!r} is no finite number"
            )
        targets.append(target)
    if len(set(targets)) < 2:
        raise ValueError(f"{table.path}: column {table.columns[-1]!r}: every target is {targets[0]}")
    return targets


def _texts(table: FileTable, labels: list[float]) -> Texts:
    pairs = [row[1] for row in table.rows] if len(table.columns) == 3 else None
    return Texts(first=[row[0] for row in table.rows], second=pairs, labels=labels)
