"""Prepares a figure's SVG for embedding in the page: no style attributes, unique ids, and other colours on a dark page."""

from __future__ import annotations

import re
from html import escape

from reports.plots.canvas import FAINT, GREY, INK, PALE, PAPER
from reports.plots.diverging import GAINS, LOSSES
from reports.plots.method_styles import FAMILIES, OTHER

# The colour on a dark page by the colour in the figure's SVG.
_DARK = (
    {INK: "#e8e8e8", GREY: "#a8adb3", PALE: "#666c73", FAINT: "#2b2f34", PAPER: "#16181b"}
    | {style.colour: style.dark for style in (*FAMILIES.values(), OTHER)}
    | {shade.colour: shade.dark for shade in (*LOSSES, *GAINS)}
)
_STYLE = re.compile(r' style="([^"]*)"')
# The line colour of a mark that is used several times: each use has it, too, and only there can the page replace it.
_MARK = re.compile(r'(<path id="[^"]*" d="[^"]*") stroke="[^"]*"')
_ROOT = re.compile(r'<svg [^>]*viewBox="([^"]*)"[^>]*>')


def inline(svg: str, name: str, label: str) -> str:
    """Return the SVG as an element of the page.

    `name` is prefixed to all ids, so that they are unique on the page; `label` is the text for screen readers.
    """
    drawing = svg[svg.index("<svg ") :]
    drawing = re.sub(r"(?s)<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawing)
    drawing = _MARK.sub(r"\1", _STYLE.sub(_attributes, drawing))
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{name}-", drawing)
    drawing = re.sub(r'xlink:href="#', f'href="#{name}-', drawing)
    box = _ROOT.search(drawing)
    assert box is not None, "matplotlib writes a viewBox"
    # The line properties that matplotlib sets in its style sheet, as attributes of the root, which elements can override.
    root = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}" stroke-linejoin="round" stroke-linecap="butt">'
    return _ROOT.sub(lambda _: root, drawing, count=1).strip()


def dark_rules() -> str:
    """Return CSS rules that replace the figures' colours on screens with a dark colour scheme, but not in print."""
    rules = [f'svg [{what}="{light}"]{{{what}:{dark}}}' for light, dark in _DARK.items() for what in ("fill", "stroke")]
    return "@media screen and (prefers-color-scheme:dark){\n" + "\n".join(rules) + "\n}\n"


def _attributes(found: re.Match[str]) -> str:
    """Return the declarations of a style attribute as separate attributes: fill="..." instead of style="fill: ..."."""
    pairs = [pair.partition(":") for pair in found[1].split(";") if pair.strip()]
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in pairs)
