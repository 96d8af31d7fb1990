"""A task in the user's own files, as a space file declares it. Standard library only; `trainables/tasks` reads the files."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal, get_args

from search_spaces.checks import check_name, check_types, is_text

Separator = Literal["", ",", ";", "\t", "|"]


@dataclass(frozen=True, kw_only=True)
class FileTask:
    """A classification or regression task in the user's own CSV, TSV, JSONL or Parquet files.

    `text`, `text_pair` and `label` are names of columns; the label is a class or, with `regression`, a number. Without a `test`
    file a tenth of `train` becomes the test split, without a `validation` file a tenth of the rest the validation split: drawn
    at random; or whole groups of rows, if `group` names a column such as the author; or the latest rows, if `time` names a column
    of numbers or ISO 8601 dates. Relative paths start at the folder of the space file. `metric` is the score to be maximised; if
    it is empty, accuracy or Pearson's correlation. `positive` names the class of F1, precision and recall. Rows without a text,
    label, group or time are an error, or dropped with `missing="drop"`. `encoding` is that of CSV, TSV and JSONL files. `header`
    names the columns of CSV and TSV files that have no header line. `separator` divides the fields of a line if it is not the
    comma of .csv files or the tab of .tsv and .txt files; quote marks then enclose fields, as in .csv files.
    """

    name: str
    train: str
    text: str
    label: str
    test: str | None = None
    text_pair: str | None = None
    regression: bool = False
    metric: str = ""
    positive: str = ""
    missing: Literal["error", "drop"] = "error"
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()
    validation: str | None = None
    group: str | None = None
    time: str | None = None
    separator: Separator = ""

    def __post_init__(self) -> None:
        check_name("task", self.name)
        check_types(f"task {self.name!r}", self)
        if not isinstance(self.header, tuple) or not all(map(is_text, self.header)):
            raise ValueError(
                f"task {self.name!r}: header = {self.header!r}: must be a tuple of column names such as ('label', 'text')"
            )
        if self.missing not in ("error", "drop"):
            raise ValueError(f"task {self.name!r}: missing = {self.missing!r}: must be 'error' or 'drop'")
        if self.separator not in get_args(Separator):
            raise ValueError(
                f"task {self.name!r}: separator = {self.separator!r}: must be one of ',', ';', '\\t' and '|'"
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(
                f"task {self.name!r}: encoding = {self.encoding!r}: Python knows no such encoding"
            ) from None
        columns = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if len(set(columns)) < len(columns):
            raise ValueError(
                f"task {self.name!r}: text, text_pair and label must be different columns; they are {columns}"
            )
        if self.group is not None and self.time is not None:
            raise ValueError(
                f"task {self.name!r}: group and time cannot both be set: the rows are split by one of them"
            )
        if self.label in (self.group, self.time):
            raise ValueError(f"task {self.name!r}: the column {self.label!r} is the label; rows cannot be split by it")
