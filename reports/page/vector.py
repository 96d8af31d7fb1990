"""Makes a figure's SVG part of a page: no style attributes, unique ids, colours that follow the page's scheme."""

from __future__ import annotations

import re
from html import escape

from reports.plots.canvas import FAINT, GREY, INK, PALE, PAPER
from reports.plots.diverging import GAINS, LOSSES
from reports.plots.method_styles import FAMILIES, OTHER

# What each colour of a figure becomes on a dark page.
_DARK = (
    {INK: "#e8e8e8", GREY: "#a8adb3", PALE: "#666c73", FAINT: "#2b2f34", PAPER: "#16181b"}
    | {style.colour: style.dark for style in (*FAMILIES.values(), OTHER)}
    | {shade.colour: shade.dark for shade in (*LOSSES, *GAINS)}
)
_STYLE = re.compile(r' style="([^"]*)"')
_ROOT = re.compile(r'<svg [^>]*viewBox="([^"]*)"[^>]*>')


def inline(svg: str, name: str, label: str) -> str:
    """The SVG as an element of a page. `name`: prefix that makes its ids unique. `label`: text for screen readers."""
    drawing = svg[svg.index("<svg ") :]
    drawing = re.sub(r"(?s)<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawing)
    drawing = _STYLE.sub(_attributes, drawing)
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{name}-", drawing)
    drawing = re.sub(r'xlink:href="#', f'href="#{name}-', drawing)
    box = _ROOT.search(drawing)
    assert box is not None, "matplotlib writes a viewBox"
    # The rules of matplotlib's style sheet for all elements, as attributes that each element can override.
    root = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}" stroke-linejoin="round" stroke-linecap="butt">'
    return _ROOT.sub(lambda _: root, drawing, count=1).strip()


def dark_rules() -> str:
    """Style rules that replace the figures' colours on a dark screen; printed pages stay white."""
    rules = [f'svg [{what}="{light}"]{{{what}:{dark}}}' for light, dark in _DARK.items() for what in ("fill", "stroke")]
    return "@media screen and (prefers-color-scheme:dark){\n" + "\n".join(rules) + "\n}\n"


def _attributes(found: re.Match[str]) -> str:
    """The declarations of a style attribute as attributes of their own."""
    pairs = [pair.partition(":") for pair in found[1].split(";") if pair.strip()]
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in pairs)
