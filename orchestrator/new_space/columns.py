"""Tells the roles of a table's columns: text, second text, label; and columns whose values group rows that belong together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from trainables.tasks.file_tables import FileTable
from trainables.tasks.files import is_missing
from trainables.tasks.forms.regression import WITH_COMMA


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words in the names of label columns, of text columns, and of columns that are neither.
LABELS = _set(
    "label labels class category target sentiment intent topic queue emotion polarity tag y score rating stars quality gold "
    "stance relevance severity priority grade spam price value amount"
)
TEXTS = _set(
    "text sentence message review comment content body document tweet post description question premise utterance title "
    "subject abstract passage string query txt sms"
)
OTHERS = _set(
    "id ids index idx date time timestamp created url link filename confidence version year name user author lang language "
    "location timezone count split trusted unit"
)
# Words in the names of columns whose values group rows: rows of one author or conversation resemble each other.
GROUPS = _set(
    "author user customer client speaker patient account sender annotator username reviewer conversation thread session doc "
    "document article dialogue dialog film movie product organisation group id"
)
# Names of two text columns that make a pair, apart from those that differ in 1 and 2, or a and b, alone.
PAIRS = {
    *(("premise", "hypothesis"), ("question", "sentence"), ("question", "passage"), ("question", "context")),
    *(("question", "answer"), ("query", "passage"), ("query", "document"), ("text", "textpair"), ("target", "text")),
}
# More different labels than this, or fewer rows for each, are no classes unless the user says so.
MOST_CLASSES, MIN_ROWS_PER_CLASS = 150, 3
# Whole numbers with more different values than this are targets of a regression.
MOST_WHOLE_CLASSES = 20
# Nor are numbers of this size classes, unless they are few.
LARGE_NUMBER, MOST_LARGE_CLASSES = 100, 4


@dataclass(frozen=True)
class Column:
    """A column of a table. values: one for each row."""

    name: str
    values: Sequence[Any] = field(repr=False)

    @cached_property
    def filled(self) -> list[Any]:
        return [value for value in self.values if not is_missing(value)]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value occurs, missing ones left out."""
        return Counter(str(value).strip() for value in self.filled)

    @cached_property
    def words(self) -> float:
        """Mean number of words of a value."""
        return fmean(len(str(value).split()) for value in self.filled) if self.filled else 0.0

    @cached_property
    def is_numeric(self) -> bool:
        return bool(self.filled) and all(map(_is_number, self.filled))

    @cached_property
    def number_with_comma(self) -> str:
        """The first number that is written with a comma, if all values are numbers apart from that, else ""."""
        found = [text for text in self.counts if WITH_COMMA.fullmatch(text)]
        others = set(self.counts) - set(found)
        return found[0] if found and all(map(_is_number, others)) else ""

    @cached_property
    def is_fractional(self) -> bool:
        """Whether the values are numbers and not all of them are whole."""
        return self.is_numeric and not all(float(value).is_integer() for value in self.filled)

    @cached_property
    def is_text(self) -> bool:
        return not self.is_numeric and all(isinstance(value, str) for value in self.filled) and len(self.counts) > 1

    @cached_property
    def are_classes(self) -> bool:
        """Whether the values can be classes: few different ones, of few words."""
        few = 2 <= len(self.counts) <= min(MOST_CLASSES, len(self.filled) / MIN_ROWS_PER_CLASS)
        return few and self.words <= 6 and not self.is_fractional

    def named(self, words: Iterable[str]) -> bool:
        """Return whether one of the words of the column's name is among these."""
        return bool(set(_words(self.name)) & set(words))


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The roles of a table's columns. other_labels, other_texts: names of columns that could have been taken instead.

    group: the name of a column whose values group rows, "" if there is none.
    """

    text: Column
    label: Column
    text_pair: Column | None
    regression: bool
    other_labels: tuple[str, ...]
    other_texts: tuple[str, ...]
    group: str


def find_roles(table: FileTable, text: str = "", label: str = "", text_pair: str = "") -> Roles:
    """Return the roles of a table's columns. `text`, `label` and `text_pair`: names that the user gives, "" for none.

    Raises ValueError if the table has no such column, or none that can be a text or a label.
    """
    columns = {name: Column(name, [row[place] for row in table.rows]) for place, name in enumerate(table.columns)}
    for flag, name in (("--text", text), ("--label", label), ("--text-pair", text_pair)):
        if name and name not in columns:
            raise ValueError(f"{flag} {name!r}: {table.path} has the columns {', '.join(map(repr, columns))}")
    given = {name for name in (text, label, text_pair) if name}
    # Of several columns with one name, none can be read.
    free = [each for name, each in columns.items() if name not in given and table.columns.count(name) == 1]
    labels = _ranked({each.name: _label_points(each, len(columns)) for each in free})
    commas = [] if labels and not label else [columns[label]] if label else list(columns.values())
    for each in commas:
        if each.number_with_comma:
            raise ValueError(
                f"{table.path}: column {each.name!r} has numbers with a comma, such as {each.number_with_comma!r}: write them "
                "with a decimal point and no other marks"
            )
    if not label and not labels:
        raise ValueError(
            f"{table.path}: no column looks like a label; name one with --label: {', '.join(map(repr, columns))}"
        )
    chosen = columns[label or labels[0]]
    texts = _ranked({each.name: _text_points(each) for each in free if each is not chosen})
    if not text and not texts:
        raise ValueError(
            f"{table.path}: no column looks like a text; name one with --text: {', '.join(map(repr, columns))}"
        )
    first = columns[text or texts[0]]
    second = columns[text_pair] if text_pair else None
    if not text and not text_pair:
        first, second = _pair(first, [columns[name] for name in texts])
    taken = {each.name for each in (first, second, chosen) if each}
    return Roles(
        text=first,
        label=chosen,
        text_pair=second,
        regression=_is_regression(chosen),
        other_labels=tuple(name for name in labels if name not in taken and not label)[:5],
        other_texts=tuple(name for name in texts if name not in taken and columns[name].words >= 3)[:5],
        group=next((each.name for each in columns.values() if each.name not in taken and _groups_rows(each)), ""),
    )


def _ranked(points: Mapping[str, float]) -> list[str]:
    """Return the names with points above 0, those with the most first."""
    return sorted((name for name, value in points.items() if value > 0), key=lambda name: -points[name])


def _label_points(column: Column, number: int) -> float:
    """Return how much a column looks like a label, 0 or less if not at all."""
    named = 4.0 if column.name.casefold() in LABELS else 2.0 if column.named(LABELS) else 0.0
    if len(column.counts) < 2 or not (column.are_classes or (column.is_numeric and (named or column.is_fractional))):
        return 0.0
    points = (
        1.0
        + named
        - (3.0 if column.named(OTHERS | GROUPS) else 0.0)
        - 2.0 * (len(column.filled) < 0.5 * len(column.values))
    )
    return points + (1 / len(column.counts) if column.are_classes else 0.0)


def _text_points(column: Column) -> float:
    if not column.is_text or column.words < 1.2:
        return 0.0
    named = 2.0 if column.name.casefold() in TEXTS else 1.0 if column.named(TEXTS) else 0.0
    repeated = len(column.filled) / len(column.counts)
    return max(0.1, math.log2(column.words) + named - (2.0 if column.named(OTHERS) else 0.0) - math.log2(repeated))


def _pair(first: Column, texts: Sequence[Column]) -> tuple[Column, Column | None]:
    """Return the two texts that make a pair with each other, in order; (the first text, None) if its name has no counterpart."""
    for other in texts:
        if other is not first and other.words >= 2:
            for one, two in ((first, other), (other, first)):
                names = _plain(one.name), _plain(two.name)
                if names in PAIRS or _differ_in(*names, "1", "2") or _differ_in(*names, "a", "b"):
                    return one, two
    return first, None


def _differ_in(one: str, two: str, first: str, second: str) -> bool:
    """Return whether the names are equal but for their first or last character, which is `first` in one and `second` in two."""
    at_start = one[:1] == first and two[:1] == second and one[1:] == two[1:]
    at_end = one[-1:] == first and two[-1:] == second and one[:-1] == two[:-1]
    return len(one) > 1 and (at_start or at_end)


def _is_regression(label: Column) -> bool:
    """Return whether the labels are numbers to predict, and not names of classes."""
    if not label.is_numeric:
        return False
    large = max(abs(float(value)) for value in label.filled) > LARGE_NUMBER
    return label.is_fractional or len(label.counts) > (MOST_LARGE_CLASSES if large else MOST_WHOLE_CLASSES)


def _groups_rows(column: Column) -> bool:
    """Return whether the column names authors or the like, of whom several have more than one row."""
    known = column.named(GROUPS) or column.name.casefold().endswith("id")
    number = len(column.counts)
    return known and not column.is_fractional and 10 <= number <= 0.9 * len(column.filled)


def _words(name: str) -> list[str]:
    """Return the words of a column's name in lower case: of "userName2" and "user_name", for example, "user" and "name"."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
