"""Converts the report's Markdown to HTML with sortable tables and embedded figures, by editing the tokens of markdown-it.

Links are replaced by their text, so that no link leaves the page. HTML in the Markdown is shown as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from reports.page import vector

_NUMBER = re.compile(r"(?:[<>] )?([-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?![\w.-])")
_FIGURE = re.compile(r"figures/([^/]+)\.png")
# Words in blocks of code that would otherwise be broken at a hyphen; longer ones may be.
_HYPHENATED = re.compile(r"(?<!\S)(?=\S*-)\S{2,30}(?!\S)")
_SHORT = 24  # table entries up to this many characters are not broken over lines
_SIDES = {"text-align:right": "right", "text-align:left": "left"}


@dataclass(frozen=True, kw_only=True)
class Body:
    """The content of the page. `headings` has (id of the element, HTML of the heading's text) for each section."""

    html: str
    headings: tuple[tuple[str, str], ...]


def body_of(markdown: str, figures: Mapping[str, str]) -> Body:
    """Convert the report's Markdown to HTML. `figures` maps the name of a figure, without folder and suffix, to its SVG text."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = _with_figures(reader.parse(markdown), figures)
    _prepare_tables(tokens)
    _keep_words(tokens)
    headings = _number_headings(tokens, reader)
    return Body(html=reader.renderer.render(tokens, reader.options, {}).strip(), headings=headings)


def number_in(text: str) -> float | None:
    """Return the number at the start of a table entry, by which the column is sorted: 1020000 for "1,020,000 (2.1 %)".

    A leading "<" or ">" is ignored. None if the entry does not start with a number.
    """
    found = _NUMBER.match(text)
    return float(found[1].replace(",", "").replace("−", "-")) if found else None


def _with_figures(tokens: Sequence[Token], figures: Mapping[str, str]) -> list[Token]:
    """Replace paragraphs with images by figures with embedded SVG, other images by their alternative text, and links by their
    text.
    """
    found: list[Token] = []
    for token in tokens:
        if token.type != "inline":
            found.append(token)
            continue
        children = [child for child in token.children or () if child.type not in ("link_open", "link_close")]
        shown = [_figure(child, figures) for child in children if child.type == "image"]
        token.children = [_text(child.content) if child.type == "image" else child for child in children]
        if shown and found[-1].type == "paragraph_open":
            found[-1] = _raw("\n".join(shown))
        else:
            found.append(token)
    return _without_ends_of_figures(found)


def _without_ends_of_figures(tokens: Sequence[Token]) -> list[Token]:
    """Remove the closing tags of paragraphs that `_with_figures` replaced by figures."""
    pairs = zip([None, *tokens], tokens, strict=False)
    return [
        token
        for before, token in pairs
        if not (token.type == "paragraph_close" and before is not None and before.type == "html_block")
    ]


def _figure(image: Token, figures: Mapping[str, str]) -> str:
    """Return the HTML of a figure with its caption; the caption alone if `figures` does not have the image."""
    named = _FIGURE.fullmatch(str(image.attrs.get("src", "")))
    caption = escape(image.content)
    if named is None or named[1] not in figures:
        return f"<p>{caption}</p>"
    drawing = vector.inline(figures[named[1]], named[1], image.content)
    box = f'<div class="wide" tabindex="0" role="region" aria-label="Figure">{drawing}</div>'
    return f"<figure>{box}<figcaption>{caption}</figcaption></figure>\n"


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _raw(html: str) -> Token:
    return Token("html_block", "", 0, content=html)


def _prepare_tables(tokens: list[Token]) -> None:
    """Edit the tokens of all tables in place.

    Alignment is set by classes instead of styles, header cells get buttons for sorting, entries get the number to sort by as an
    attribute, and each table is put into a box in which it scrolls if it is too wide.
    """
    for position, token in enumerate(tokens):
        if token.type in ("th_open", "td_open"):
            token.attrs = {"class": _SIDES.get(str(token.attrs.get("style", "")), "left")}
            text = _plain(tokens[position + 1])
            if token.type == "td_open" and len(text) <= _SHORT:
                token.attrs["class"] = f"{token.attrs['class']} short"
            number = number_in(text)
            if token.type == "th_open":
                _make_button(tokens[position + 1], token)
            elif number is not None:
                token.attrs["data-sort"] = f"{number:.12g}"
            elif text in ("", "–") or text.startswith("– "):
                token.attrs["data-sort"] = ""
        elif token.type == "table_open":
            tokens[position] = _raw('<div class="wide" tabindex="0" role="region" aria-label="Table"><table>\n')
        elif token.type == "table_close":
            tokens[position] = _raw("</table></div>\n")
    _set_feet(tokens)


def _keep_words(tokens: list[Token]) -> None:
    """Mark words with hyphens in blocks of code, such as "--gpus", so that lines are broken between words only."""
    for position, token in enumerate(tokens):
        if token.type == "fence":
            code = _HYPHENATED.sub(r'<span class="short">\g<0></span>', escape(token.content, quote=False))
            tokens[position] = _raw(f"<pre><code>{code}</code></pre>\n")


def _make_button(inline: Token, header: Token) -> None:
    """Put the text of a header cell into a button, which the page's script uses for sorting."""
    header.attrs |= {"scope": "col", "aria-sort": "none"}
    start, end = Token("html_inline", "", 0, content='<button type="button">'), Token("html_inline", "", 0)
    end.content = "</button>"
    inline.children = [start, *(inline.children or ()), end]


def _set_feet(tokens: list[Token]) -> None:
    """Move the last rows whose first entry is italic (a sum, a baseline) to the table's footer, which is not sorted."""
    for position in reversed([i for i, token in enumerate(tokens) if token.type == "tbody_close"]):
        start = position
        while (row := _row_start(tokens, start)) is not None and _emphasised(tokens[row + 2]):
            start = row
        if start != position and tokens[start - 1].type != "tbody_open":
            tokens[position] = _raw("</tfoot>\n")
            tokens.insert(start, _raw("</tbody>\n<tfoot>\n"))


def _row_start(tokens: Sequence[Token], end: int) -> int | None:
    """Return the index of the token that opens the row that ends right before `end`; None if no row ends there."""
    if tokens[end - 1].type != "tr_close":
        return None
    return next(i for i in range(end - 1, -1, -1) if tokens[i].type == "tr_open")


def _emphasised(cell: Token) -> bool:
    """Whether the whole text of the cell is italic."""
    children = [child for child in cell.children or () if child.content or child.type != "text"]
    return len(children) > 2 and children[0].type == "em_open" and children[-1].type == "em_close"


def _number_headings(tokens: Sequence[Token], reader: MarkdownIt) -> tuple[tuple[str, str], ...]:
    """Give each heading of level 2 an id, and return (id, HTML of the heading's text) for the table of contents."""
    found: list[tuple[str, str]] = []
    for position, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrs["id"] = f"section-{len(found) + 1}"
            text = reader.renderer.render(tokens[position + 1 : position + 2], reader.options, {})
            found.append((str(token.attrs["id"]), text))
    return tuple(found)


def _plain(inline: Token) -> str:
    """Return the text of a cell without markup."""
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline")).strip()
