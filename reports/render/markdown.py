"""Formats text, numbers and lists as Markdown, and escapes text from the tracking store.

Titles, reasons of failures and tags come from a store to which other programs may write. All text is therefore escaped before it
is put into a table cell, unless it is `Markup`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from reports.statistics.rounding import PRINTED_DIGITS

MISSING = "–"
LONGEST = 300  # characters; longer text from the store is cut, because error messages can have megabytes
_SPECIAL = re.compile(r"[\\|`*$\[\]]")
_SPACES = re.compile(r"\s+")


class Markup(str):
    """Text that needs no escaping: Markdown written by this project, or text that is already escaped."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Escape and shorten text (`plain_text`), so that Markdown shows it literally on one line; `Markup` is returned unchanged."""
    if isinstance(text, Markup):
        return text
    plain = plain_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(_SPECIAL.sub(r"\\\g<0>", plain))


def plain_text(text: object) -> str:
    """Return the text on one line, without control and text-direction characters, cut to `LONGEST` characters."""
    spaced = _SPACES.sub(" ", str(text)[: 4 * LONGEST]).strip()
    visible = "".join(sign for sign in spaced if unicodedata.category(sign) not in ("Cc", "Cf", "Cs"))
    return visible if len(visible) <= LONGEST else visible[: LONGEST - 1] + "…"


def bullets(items: Iterable[object]) -> str:
    """Return a Markdown list with one escaped item per line."""
    return "\n".join(f"- {escape(item)}" for item in items)


def fence(text: str) -> str:
    """Return the text as a fenced code block; the fence is longer than any sequence of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    shown = "".join(sign for sign in text if sign == "\n" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs"))
    return f"{marks}text\n{shown}\n{marks}"


def paragraphs(*parts: str) -> str:
    """Join the parts that are not empty with blank lines."""
    return "\n\n".join(part for part in parts if part)


def plural(number: int, noun: str) -> str:
    """Return the number with its noun: "1 cell", "2 cells"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def count(number: float | None) -> str:
    """Format a whole number with separators ("1,204,224"); "–" for None and NaN."""
    return MISSING if number is None or number != number else f"{number:,.0f}"


def points(number: float | None) -> str:
    """Format a score in percent points with two decimals, as in all tables; "–" for None and NaN."""
    return MISSING if number is None or number != number else f"{number:.{PRINTED_DIGITS}f}"


def percent(part: float, total: float) -> str:
    """Format `part` as a percentage of `total` with three significant digits: "95.0 %", "1.12 %", "0.670 %"."""
    share = 100 * part / total
    return f"{share:.1f} %" if share >= 10 else f"{share:.2f} %" if share >= 1 else f"{share:#.3g} %"


def shares(parts: Sequence[float], total: float) -> str:
    """Format the parts as percentages of `total`, from the smallest to the largest: "0.670 to 1.12 %"; "–" without parts."""
    if not parts:
        return MISSING
    low, high = percent(min(parts), total), percent(max(parts), total)
    return high if low == high else f"{low.removesuffix(' %')} to {high}"
