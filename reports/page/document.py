"""Builds summary.html: the content of summary.md and the figures in one file that refers to no other file.

The page's Content-Security-Policy allows only its own script and style sheet, by their hashes. Elements therefore have no style
attributes, which browsers would ignore under this policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path

from reports.page import vector
from reports.page.body import Body, body_of

HERE = Path(__file__).parent


def page(title: str, markdown: str, figures: Mapping[str, str]) -> str:
    """Return the HTML of the page. `figures` maps the name of a figure's file, without folder and suffix, to its SVG text."""
    style = (HERE / "page.css").read_text(encoding="utf-8") + vector.dark_rules()
    script = (HERE / "page.js").read_text(encoding="utf-8")
    body = body_of(markdown, figures)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{_contents(body)}
<main>
{body.html}
</main>
<script>{script}</script>
</body>
</html>
"""


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy that allows this style sheet and this script, and nothing else."""
    rules = ("default-src 'none'", f"style-src '{_hash(style)}'", f"script-src '{_hash(script)}'")
    return "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _contents(body: Body) -> str:
    """Return the table of contents as HTML, with links to the sections; "" without sections."""
    links = "\n".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in body.headings)
    return f'<nav aria-label="Contents"><ul>\n{links}\n</ul></nav>' if links else ""
