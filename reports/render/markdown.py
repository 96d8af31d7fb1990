"""Writes Markdown: lists, numbers and text, with every foreign text escaped.

Titles, reasons and tags come from a store that others may write to; only `Markup` reaches a table cell as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from reports.statistics.rounding import PRINTED_DIGITS

MISSING = "–"
LONGEST = 300  # characters of a foreign text; an error message may hold megabytes
_SPECIAL = re.compile(r"[\\|`*$\[\]]")
_SPACES = re.compile(r"\s+")


class Markup(str):
    """Markdown written by this project, or escaped text."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Escape text so that it is shown literally: no HTML, no link, no line break, no end of a table cell."""
    if isinstance(text, Markup):
        return text
    plain = plain_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(_SPECIAL.sub(r"\\\g<0>", plain))


def plain_text(text: object) -> str:
    """One line without control and direction characters, cut to a readable length."""
    spaced = _SPACES.sub(" ", str(text)[: 4 * LONGEST]).strip()
    visible = "".join(sign for sign in spaced if unicodedata.category(sign) not in ("Cc", "Cf", "Cs"))
    return visible if len(visible) <= LONGEST else visible[: LONGEST - 1] + "…"


def bullets(items: Iterable[object]) -> str:
    return "\n".join(f"- {escape(item)}" for item in items)


def fence(text: str) -> str:
    """A code block, with a fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    shown = "".join(sign for sign in text if sign == "\n" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs"))
    return f"{marks}text\n{shown}\n{marks}"


def paragraphs(*parts: str) -> str:
    """The parts that are not empty, with blank lines between."""
    return "\n\n".join(part for part in parts if part)


def plural(number: int, noun: str) -> str:
    """The number with its noun: 1 cell, 2 cells."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def count(number: float | None) -> str:
    """A whole number with separators: 1,204,224."""
    return MISSING if number is None or number != number else f"{number:,.0f}"


def points(number: float | None) -> str:
    """A score in percent points with the decimals that all tables print."""
    return MISSING if number is None or number != number else f"{number:.{PRINTED_DIGITS}f}"


def percent(part: float, total: float) -> str:
    """A share of `total`: 95.0 %, 1.12 %, 0.670 %."""
    share = 100 * part / total
    return f"{share:.1f} %" if share >= 10 else f"{share:.2f} %" if share >= 1 else f"{share:#.3g} %"


def shares(parts: Sequence[float], total: float) -> str:
    """The share of `total`, or the smallest and the largest: 1.12 %, 0.670 to 1.12 %."""
    if not parts:
        return MISSING
    low, high = percent(min(parts), total), percent(max(parts), total)
    return high if low == high else f"{low.removesuffix(' %')} to {high}"
