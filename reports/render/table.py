"""A table that is defined once and rendered both as Markdown for the summary and as LaTeX for a paper.

An entry of a table is `Markup` (escaped text, parts of which may be `**bold**` or `*italic*`), or any other value, whose text is
escaped. The LaTeX needs the packages booktabs, textcomp and amssymb and compiles with any engine.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from reports.render.markdown import MISSING, Markup, escape

_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_SIGNS = {
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "−": r"$-$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "▾": r"$\triangledown$",
    "⇥": r"$\rightarrow$",
    "↳": r"$\hookrightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    MISSING: "--",
    "…": r"\ldots{}",
}
_STYLED = re.compile(r"\*\*(?P<bold>(?:\\.|[^*\\])+)\*\*|\*(?P<italic>(?:\\.|[^*\\])+)\*")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; `align` has one letter per column, l (left) or r (right). The caption appears in LaTeX only."""

    header: Sequence[object]
    rows: Sequence[Sequence[object]]
    align: str
    caption: Markup

    def __post_init__(self) -> None:
        assert self.caption, "a table in a paper has a caption"
        assert all(len(row) == len(self.header) == len(self.align) for row in self.rows), "as many cells as columns"

    def markdown(self, repeated: Collection[str] = ()) -> str:
        """Return the table as Markdown with pipes, without the caption.

        Columns whose names are in `repeated` are left out if all their entries are the same; they come first in the table. The
        italic title of a last row (a sum) moves to the first column that is shown.
        """
        shown = [i for i, name in enumerate(self.header) if name not in repeated or len(self._entries(i)) > 1]
        rules = [{"l": ":---", "r": "---:"}[self.align[i]] for i in shown]
        lines = [[row[0] if _is_foot(row) and i == shown[0] else row[i] for i in shown] for row in self.rows]
        header = [self.header[i] for i in shown]
        return "\n".join([_line(header), "| " + " | ".join(rules) + " |", *map(_line, lines)])

    def _entries(self, column: int) -> set[str]:
        """The different entries of a column, sums left out."""
        return {str(row[column]) for row in self.rows if not _is_foot(row)}

    def latex(self, label: str) -> str:
        """Return the table as a LaTeX table environment with the label "tab:LABEL", to be included with \\input."""
        feet = [row for row in self.rows if _is_foot(row)]
        lines = [
            "% Needs the packages booktabs, textcomp and amssymb.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(self.caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{self.align}}}",
            r"\toprule",
            _row(self.header),
            r"\midrule",
            *(_row(row) for row in self.rows if not _is_foot(row)),
            *([r"\midrule"] if feet and len(feet) < len(self.rows) else []),
            *map(_row, feet),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _is_foot(row: Sequence[object]) -> bool:
    """Whether the row is a sum or a baseline: its first entry is in italics."""
    return isinstance(row[0], Markup) and row[0].startswith("*") and not row[0].startswith("**")


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"


def _row(cells: Sequence[object]) -> str:
    return " & ".join(_tex(escape(cell)) for cell in cells) + r" \\"


def _tex(markup: Markup) -> str:
    """Convert Markup to LaTeX: keep bold and italic parts, and escape the text that Markdown would show."""
    parts, end = [], 0
    for found in _STYLED.finditer(markup):
        if found.start() and markup[found.start() - 1] == "\\":
            continue
        command = "textbf" if found["bold"] else "emph"
        parts += [_plain(markup[end : found.start()]), rf"\{command}{{{_plain(found['bold'] or found['italic'])}}}"]
        end = found.end()
    return "".join([*parts, _plain(markup[end:])])


def _plain(text: str) -> str:
    """Undo the escaping for Markdown and HTML, and escape the text for LaTeX instead."""
    shown = html.unescape(_ESCAPED.sub(r"\1", text))
    return "".join(_SPECIAL.get(sign) or _SIGNS.get(sign) or sign for sign in shown)
