"""Names of classes in label columns of the user's files: one name per class, whatever the file format or spelling of numbers.

Numbers are compared as numbers, so that 0, 0.0 and "0" are one class, and texts in Unicode normalization form C. Standard library
only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from trainables.tasks.forms.form import LabelColumn

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
# Spellings that often mean the same class.
ABBREVIATIONS = {"y": "yes", "n": "no", "t": "true", "f": "false", "pos": "positive", "neg": "negative"}
# The negative and the positive class of a pair that needs no explanation, in lower case.
EVIDENT = {
    ("0", "1"),
    ("-1", "1"),
    ("false", "true"),
    ("f", "t"),
    ("no", "yes"),
    ("n", "y"),
    ("negative", "positive"),
    ("neg", "pos"),
}


def read_names(column: LabelColumn, only_booleans: bool) -> list[str]:
    """Return the class name of each row. `only_booleans`: whether all labels of all files are true or false.

    Raises ValueError for a label that cannot be a class, and for a file whose labels are all -1, with which data sets mark parts
    without labels.
    """
    for index, label in enumerate(column.values):
        if label == "nan":
            raise ValueError(f"{column.where_row(index)}: the label is missing ('nan'); fill or remove the row")
        if isinstance(label, dict | list) or (isinstance(label, float) and not label.is_integer()):
            raise ValueError(f"{column.where_row(index)}: {label!r} is no class; for numbers set regression=True")
    names = [class_name(label, only_booleans) for label in column.values]
    if set(names) == {"-1"}:
        raise ValueError(f"{column.where}: every label is -1, so the file has no labels; take one that has")
    return names


def class_name(label: object, only_booleans: bool = False) -> str:
    """Return the name of a label's class: a number in its shortest form, a text in Unicode normalization form C."""
    if isinstance(label, bool):
        return str(label) if only_booleans else str(int(label))
    text = unicodedata.normalize("NFC", str(label)).strip()
    if not NUMBER.fullmatch(text):
        return text
    whole, _, fraction = text.partition(".")
    if not fraction.strip("0"):
        return str(int(whole))
    return f"{'-' if whole.startswith('-') else ''}{abs(int(whole))}.{fraction.rstrip('0')}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names sorted: by value if all are numbers, else as texts."""
    known = set(names)
    numeric = all(NUMBER.fullmatch(name) for name in known)
    return sorted(known, key=lambda name: (float(name), name)) if numeric else sorted(known)


def evident_positive(names: Iterable[str]) -> str | None:
    """Return the positive class of a pair such as no and yes, or spam and not_spam; None if the names do not tell it."""
    pair = list(names)
    for negative, positive in (pair, pair[::-1]):
        low, high = negative.casefold(), positive.casefold()
        if (low, high) in EVIDENT or re.fullmatch(rf"(not|non|no)[\s_-]?{re.escape(high)}", low):
            return positive
    return None


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in case, blanks, punctuation, invisible characters or a usual abbreviation."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[_skeleton(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _skeleton(name: str) -> str:
    """Return what two spellings of one class have in common; numbers and names without letters are their own."""
    if NUMBER.fullmatch(name):
        return name
    folded = unicodedata.normalize("NFKC", name).casefold()
    letters = "".join(c for c in folded if c.isalnum())
    return ABBREVIATIONS.get(letters, letters) or name


def counts_text(names: Sequence[str], most: int = 20) -> str:
    """Return "N 1053, NA 1393": each class, in order, with its number of examples; after `most` classes, how many more."""
    counts = Counter(names)
    order = in_order(counts)
    more = f" and {len(order) - most} more classes" if len(order) > most else ""
    return ", ".join(f"{printable(name)} {counts[name]}" for name in order[:most]) + more


def printable(name: str, most: int = 40) -> str:
    """Return the name on one line, at most 40 characters; control characters, which a terminal would obey, as escapes."""
    shown = name if name.isprintable() else repr(name)[1:-1]
    return shown if len(shown) <= most else shown[: most - 1] + "…"
