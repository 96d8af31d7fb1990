"""Reads the columns of one table in a file: CSV, TSV, JSON lines or Parquet.

CSV, TSV and JSON lines are read with the standard library, so that they can be checked completely before large libraries are
imported, and so that "NA" and "null" remain texts. In TSV files quote marks are text, as in GLUE's, unless the user names the
separator. Row numbers in messages count examples from 1. Lines without any content, such as those that spreadsheets append, are
skipped.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainables.tasks.forms.form import LabelColumn

TAB_SUFFIXES = (".tsv", ".txt")
SUFFIXES = (".csv", *TAB_SUFFIXES, ".jsonl", ".parquet")
# Longest text of a CSV field; the library's own limit is 131,072 characters.
MOST_CHARACTERS = 2**31 - 1

Cells = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class FileTable:
    """The task's columns of one file.

    rows: one tuple per example: (text, label), or (text, text_pair, label). numbers: the number of each row in the file, from 1.
    key_column: the column by which rows are split, "" if they are split at random. keys: its values; empty without it.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Cells]
    numbers: list[int]
    key_column: str = ""
    keys: list[Any] = field(default_factory=list)

    @property
    def labels(self) -> LabelColumn:
        return LabelColumn(
            path=self.path,
            name=self.columns[-1],
            values=tuple(row[-1] for row in self.rows),
            numbers=tuple(self.numbers),
        )

    def select(self, indices: Iterable[int]) -> FileTable:
        """Return the table of the rows at these indices."""
        chosen = list(indices)
        return replace(
            self,
            rows=[self.rows[i] for i in chosen],
            numbers=[self.numbers[i] for i in chosen],
            keys=[self.keys[i] for i in chosen] if self.key_column else [],
        )

    def cells(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield the name and the values of each column, the label's and the keys' included."""
        for place, name in enumerate(self.columns):
            yield name, [row[place] for row in self.rows]
        if self.key_column:
            yield self.key_column, self.keys


def read_table(
    path: Path,
    columns: tuple[str, ...],
    encoding: str,
    header: tuple[str, ...],
    key_column: str = "",
    separator: str = "",
) -> FileTable:
    """Read these columns, and the one by which rows are split, if any.

    `header` names all columns of a CSV or TSV file without a header line; it is () for other files. `separator`: "" for the usual
    one of the file's suffix. Raises ValueError naming file and row of what cannot be read.
    """
    wanted = (*columns, key_column) if key_column else columns
    # A byte order mark is not text.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        match path.suffix.lower():
            case ".jsonl":
                rows = list(_jsonl(path, wanted, encoding))
            case ".parquet":
                rows = list(_parquet(path, wanted))
            case suffix if separator or suffix == ".csv":
                rows = list(_csv(path, wanted, encoding, header, separator or ","))
            case _:
                rows = list(_tsv(path, wanted, encoding, header))
    except UnicodeError:
        raise ValueError(_undecodable(path, encoding)) from None
    if not rows:
        raise ValueError(f"{path}: has no examples")
    return FileTable(
        path=path,
        columns=columns,
        rows=[row[: len(columns)] for row in rows],
        numbers=list(range(1, len(rows) + 1)),
        key_column=key_column,
        keys=[row[-1] for row in rows] if key_column else [],
    )


def _undecodable(path: Path, encoding: str) -> str:
    """Return the message for a file that is not text in this encoding, with the line and the bytes."""
    data = path.read_bytes()
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        line, found = data[: error.start].count(b"\n") + 1, data[error.start : error.start + 4]
        where = f"line {line} has the bytes {found.hex(' ')}"
    except UnicodeError as error:
        where = str(error)
    else:
        where = "its end is incomplete"
    name = encoding.removesuffix("-sig").upper()
    return (
        f"{path}: is not {name} text ({where}): save it as UTF-8, or name its encoding in the FileTask, "
        f"such as encoding='cp1252' or encoding='mac_roman'"
    )


def _csv(
    path: Path, columns: tuple[str, ...], encoding: str, header: tuple[str, ...], separator: str
) -> Iterator[Cells]:
    csv.field_size_limit(MOST_CHARACTERS)
    with path.open(encoding=encoding, newline="") as file:
        lines = csv.reader(file, strict=True, delimiter=separator)
        try:
            yield from _separated(path, columns, lines, header)
        except csv.Error as error:
            raise ValueError(f"{path}:{lines.line_num}: {error}; is a quote mark left open?") from None


def _tsv(path: Path, columns: tuple[str, ...], encoding: str, header: tuple[str, ...]) -> Iterator[Cells]:
    with path.open(encoding=encoding, newline="\n") as file:
        yield from _separated(path, columns, (line.rstrip("\r\n").split("\t") for line in file), header)


def _separated(
    path: Path, columns: tuple[str, ...], lines: Iterator[list[str]], given: tuple[str, ...]
) -> Iterator[Cells]:
    """Yield the values of `columns` in each line after the header; `given` is the header of a file without one.

    Raises ValueError for a wrong header or number of fields.
    """
    header = list(given) or next(lines, [])
    if not header:
        raise ValueError(f"{path}: the file has no header; its first line must name the columns")
    places = [_place(path, header, name, given) for name in columns]
    for number, fields in enumerate((line for line in lines if any(line)), start=1):
        if len(fields) != len(header):
            hint = (
                "; if a text holds a tab or a line break, and quote marks enclose it, set FileTask(separator='\\t')"
                if path.suffix.lower() in TAB_SUFFIXES
                else ""
            )
            raise ValueError(f"{path}: row {number} has {len(fields)} fields, the header has {len(header)}{hint}")
        yield tuple(fields[place] for place in places)


def _place(path: Path, header: list[str], name: str, given: tuple[str, ...] = ()) -> int:
    """Return the index of a column in the header. Raises ValueError unless the column occurs exactly once."""
    if header.count(name) != 1:
        problem = "stands twice in" if name in header else "is not in"
        hint = "" if given else "; a file without a header line needs FileTask(header=(...))"
        raise ValueError(f"{path}: column {name!r} {problem} the header: {', '.join(map(repr, header))[:300]}{hint}")
    return header.index(name)


def _jsonl(path: Path, columns: tuple[str, ...], encoding: str) -> Iterator[Cells]:
    with path.open(encoding=encoding, newline="\n") as file:
        for number, line in enumerate((line for line in file if line.strip()), start=1):
            record = json_record(path, number, line)
            for name in columns:
                if name not in record:
                    raise ValueError(
                        f"{path}: row {number} has no {name!r}; it has: {', '.join(map(repr, record))[:300]}"
                    )
            yield tuple(record[name] for name in columns)


def json_record(path: Path, number: int, line: str) -> dict[str, Any]:
    """Return the JSON object of one line. Raises ValueError naming file and row if it is none."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: row {number} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: row {number} is no JSON object")
    return record


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
