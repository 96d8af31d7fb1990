"""Finds out how a user's table is written: its encoding, what separates its fields, whether its first line names the columns."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.tasks.file_tables import SUFFIXES, TAB_SUFFIXES, FileTable, json_record, read_table

# Separators that are tried, the usual ones first.
SEPARATORS = (",", "\t", ";", "|")
# Characters of a file from which its separator and header are told.
SAMPLE = 1_000_000
# Two separators are told apart by the share of records with the same number of fields; below this, neither is the separator.
MIN_SHARE = 0.9
ADVICE = {
    ".xlsx": "save it as CSV UTF-8",
    ".xls": "save it as CSV UTF-8",
    ".json": "write one JSON object per line, into a .jsonl file",
    ".gz": "unpack it",
    ".zip": "unpack it",
}


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """How a file is read; the fields have the names and the meaning of those of `FileTask`. columns: the names of all columns.

    foreign_word: a word that looks wrong if the encoding is guessed wrong, "" if there is none.
    """

    path: Path
    columns: tuple[str, ...]
    encoding: str = "utf-8"
    separator: str = ""
    header: tuple[str, ...] = ()
    foreign_word: str = ""

    def read(self, path: Path | None = None) -> FileTable:
        """Return all columns of this file, or of another one of this format. Raises ValueError naming the row of a fault."""
        return read_table(path or self.path, self.columns, self.encoding, self.header, separator=self.separator)


def find_format(path: Path) -> TableFormat:
    """Return the format of a file. Raises ValueError if it is no table that a `FileTask` can read."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if suffix not in SUFFIXES:
        advice = ADVICE.get(suffix, "rename it")
        raise ValueError(f"{path}: the file's name must end in {', '.join(SUFFIXES)}: {advice}")
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return TableFormat(path=path, columns=tuple(pyarrow.parquet.read_schema(path).names))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: is no readable Parquet file: {str(error)[:200]}") from None
    encoding, text, word = _decode(path)
    if not text.strip():
        raise ValueError(f"{path}: is empty")
    if suffix == ".jsonl":
        return TableFormat(path=path, columns=_keys(path, text), encoding=encoding, foreign_word=word)
    separator, records = _separated(path, text)
    named = _has_header(records)
    columns = tuple(records[0]) if named else tuple(f"column{i + 1}" for i in range(len(records[0])))
    return TableFormat(
        path=path,
        columns=columns,
        encoding=encoding,
        separator=separator,
        header=() if named else columns,
        foreign_word=word,
    )


def _decode(path: Path) -> tuple[str, str, str]:
    """Return the encoding, the beginning of the text, and a word that shows whether a guess was right."""
    data = path.read_bytes()
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8", "cp1252", "mac_roman"):
        try:
            text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text[:SAMPLE]:
            break
        guessed = encoding not in ("utf-8", "utf-16")
        words = [re.findall(pattern, text) for pattern in (r"\w*[^\W\d_a-zA-Z]\w*", r"\S*[^\x00-\x7f]\S*")]
        return encoding, text[:SAMPLE], max((words[0] or words[1])[:200], key=len, default="")[:30] if guessed else ""
    raise ValueError(f"{path}: is no text in UTF-8, UTF-16 or an 8-bit encoding of Windows or macOS")


def _keys(path: Path, text: str) -> tuple[str, ...]:
    """Return the names that the first lines of a JSONL file have in common."""
    keys: list[str] = []
    # The last line of the sample may be cut.
    for number, line in enumerate(
        [line for line in text.split("\n") if line.strip()][: 100 if len(text) < SAMPLE else -1]
    ):
        record = json_record(path, number + 1, line)
        keys = [key for key in keys if key in record] if number else list(record)
    return tuple(keys)


def _separated(path: Path, text: str) -> tuple[str, list[list[str]]]:
    """Return the separator as `FileTask` names it, "" for the usual one of the file's suffix, and the first records."""
    usual = "\t" if path.suffix.lower() in TAB_SUFFIXES else ","
    found: dict[tuple[str, bool], tuple[float, list[list[str]]]] = {}
    for separator in SEPARATORS:
        for quoted in (False, True) if separator == "\t" else (True,):
            records = _records(text, separator, quoted)
            [(number, count)] = Counter(map(len, records)).most_common(1)
            found[separator, quoted] = (count / len(records) if number > 1 else 0.0, records)
    # In files of the usual kind, quote marks are text between tabs and enclose fields between commas.
    best = max(found, key=lambda key: (found[key][0], key == (usual, usual != "\t"), key[0] == usual))
    if best == ("\t", False) and (usual != "\t" or _are_quoted(found[best][1])):
        best = ("\t", True)
    share, records = found[best]
    if not share:
        raise ValueError(f"{path}: has a single column, and a text and a label are needed")
    if share < MIN_SHARE:
        raise ValueError(f"{path}: its lines have different numbers of fields; {_ragged(records, best[0])}")
    separator, quoted = best
    return "" if separator == usual and quoted == (usual != "\t") else separator, records


def _ragged(records: Sequence[Sequence[str]], separator: str) -> str:
    """Return which record has another number of fields than most, and what to do."""
    [(usual, _)] = Counter(map(len, records)).most_common(1)
    number = next(number for number, record in enumerate(records, start=1) if len(record) != usual)
    name = {",": "a comma", "\t": "a tab", ";": "a semicolon"}.get(separator, separator)
    found = len(records[number - 1])
    return (
        f"if {name} separates them, most have {usual}, and record {number} (the header counts) has {found}: put quote "
        "marks around each text that holds the separator, a quote mark or a line break"
    )


def _records(text: str, separator: str, quoted: bool) -> list[list[str]]:
    if quoted:
        csv.field_size_limit(2**31 - 1)
        records = [record for record in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(record)]
    else:
        records = [line.rstrip("\r").split(separator) for line in text.split("\n") if line.strip()]
    # The last one of the sample may be cut.
    return records[:-1] if len(text) == SAMPLE and len(records) > 1 else records


def _are_quoted(records: Sequence[Sequence[str]]) -> bool:
    """Return whether a program has put quote marks around all fields that hold one, and has doubled those inside."""
    fields = [field for record in records for field in record if '"' in field]
    return bool(fields) and all(len(field) > 1 and field[0] == field[-1] == '"' for field in fields)


def _has_header(records: Sequence[Sequence[str]]) -> bool:
    """Return whether the first record names the columns: short, different names, none a number or a value of its column."""
    first, rest = records[0], records[1:]
    names = [name.strip() for name in first]
    if len(set(names)) < len(names) or any(len(name) > 60 or len(name.split()) > 6 for name in names):
        return False
    # pandas leaves the name of its index column empty.
    if any(_is_number(name) for name in names) or not all(names[1:]):
        return False
    return not any(
        name and any(len(record) > place and record[place].strip() == name for record in rest)
        for place, name in enumerate(names)
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
