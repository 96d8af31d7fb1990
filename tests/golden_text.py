"""Compares a text with the one that was reviewed: words exactly, computed numbers within what another CPU may change."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal

# A number with decimals or an exponent. Whole numbers count things, so they are compared as words.
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)(?![\w]|\.\d)")
RELATIVE, ABSOLUTE = 1e-9, 1e-12
DIGITS = 3


def numbers_agree(reviewed: str, now: str, *, rounded: bool) -> bool:
    """Whether two printed numbers may come from the same computation.

    A number that is not rounded may differ by 1e-9 of its size. A rounded one may differ by one in the last place if it has
    three digits; with fewer digits that would be a large change, and it must be the same.
    """
    if not rounded:
        return abs(float(now) - float(reviewed)) <= max(ABSOLUTE, RELATIVE * abs(float(reviewed)))
    a, b = Decimal(reviewed), Decimal(now)
    if a == b or max(len(a.as_tuple().digits), len(b.as_tuple().digits)) < DIGITS:
        return a == b
    return abs(a - b) <= max(Decimal(1).scaleb(int(n.as_tuple().exponent)) for n in (a, b))


def changes(name: str, reviewed: str, now: str) -> list[str]:
    """Lines of a unified diff; lines that differ only in what another CPU may change are left out.

    The numbers of CSV files are not rounded, those of other files are.
    """
    before, after = reviewed.split("\n"), now.split("\n")
    words = [[NUMBER.sub("#", line) for line in lines] for lines in (before, after)]
    for start, start_after, size in difflib.SequenceMatcher(None, *words, autojunk=False).get_matching_blocks():
        for i, j in zip(range(start, start + size), range(start_after, start_after + size), strict=True):
            pairs = zip(NUMBER.findall(before[i]), NUMBER.findall(after[j]), strict=True)
            if all(numbers_agree(a, b, rounded=not name.endswith(".csv")) for a, b in pairs):
                after[j] = before[i]
    return list(difflib.unified_diff(before, after, f"{name}, reviewed", f"{name}, now", lineterm="", n=0))


def all_changes(reviewed: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Changes in all files of a folder, by name; first the files that are new or gone."""
    lines = [f"new file: {name}" for name in sorted(set(now) - set(reviewed))]
    lines += [f"file is gone: {name}" for name in sorted(set(reviewed) - set(now))]
    for name in sorted(set(reviewed) & set(now)):
        lines += changes(name, reviewed[name], now[name])[:20]
    return lines
