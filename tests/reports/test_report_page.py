"""The report as a page: it loads and runs nothing foreign, shows foreign text as text, and holds together."""

import base64
import hashlib
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser

import pytest

from reports.build import render, summary
from reports.page.body import body_of, number_in
from reports.page.document import page
from reports.page.vector import inline
from tests.fixtures.figure_store import in_memory, made_up
from tests.fixtures.report_store import FakeTrial, manifest

ALLOWED = set(
    re.findall(
        r"\w+",
        "html head meta title style body nav ul li a main h1 h2 h3 p blockquote strong em code pre script div table thead tbody "
        "tfoot tr th td span button figure figcaption svg g path use defs clippath rect",
    )
)
HOSTILE = (
    "</title></td><script>alert(1)</script><img src=x onerror=alert(1)>\"' | `x` [l](javascript:alert(1)) &lt;b&gt;"
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of style and script."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside, self.texts, self.shown = [], "", {"style": [], "script": []}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.texts.get(self.inside, self.shown).append(data)


elements_of = cache(Elements)


@pytest.fixture(scope="module")
def known(known_report):
    return (known_report / "summary.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    record, trials, winners = made_up(2, tasks=("mrpc",), trials=3, epochs=3)
    record["title"] = record["device"] = record["commit"] = HOSTILE
    for facts in (*record["methods"].values(), *record["tasks"].values(), *record["models"].values()):
        facts["title"] = HOSTILE
    for facts in record["methods"].values():
        facts["family"] = HOSTILE
    record["command"] = f"run {HOSTILE}\n```\n<script>alert(2)</script>"
    folder = tmp_path_factory.mktemp("hostile")
    render(in_memory(record, trials, winners), folder)
    return (folder / "summary.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["known", "hostile"])
def test_the_policy_allows_only_the_pages_own_style_and_script(name, request):
    elements = elements_of(request.getfixturevalue(name))
    policies = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert len(policies) == 1
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    for kind in ("style", "script"):
        digest = hashlib.sha256("".join(elements.texts[kind]).encode()).digest()
        assert rules.pop(f"{kind}-src") == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules == {}
    assert (
        Counter(tag for tag, _ in elements.found)["script"] == Counter(tag for tag, _ in elements.found)["style"] == 1
    )


@pytest.mark.parametrize("name", ["known", "hostile"])
def test_nothing_on_the_page_has_an_address_a_style_or_a_handler(name, request):
    for tag, attributes in elements_of(request.getfixturevalue(name)).found:
        assert tag in ALLOWED
        assert "style" not in attributes
        assert "src" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
        assert not [
            value for value in attributes.values() if value and re.search(r"url\((?!#)|^\s*(https?|data|file):", value)
        ]


@pytest.mark.parametrize("name", ["known", "hostile"])
def test_ids_are_unique_and_every_reference_has_its_target(name, request):
    elements = elements_of(request.getfixturevalue(name)).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    values = [value for _, attributes in elements for value in attributes.values() if value]
    references = {found for value in values for found in re.findall(r"url\(#([^)]+)\)", value)}
    references |= {a["href"][1:] for _, a in elements if a.get("href", "").startswith("#")}
    assert references
    assert references <= set(ids)


def test_foreign_text_shows_as_itself(hostile):
    shown = "".join(elements_of(hostile).shown)
    assert "<script>alert(1)</script><img src=x onerror=alert(1)>\"'" in shown
    assert "[l](javascript:alert(1)) &lt;b&gt;" in shown
    assert "<script>alert(2)</script>" in shown


def test_the_page_says_what_the_summary_says(known, known_report):
    text = (known_report / "summary.md").read_text(encoding="utf-8")
    shown = " ".join("".join(elements_of(known).shown).split())
    for line in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        assert line in shown
    tables = len(re.findall(r"^\| :?-", text, flags=re.MULTILINE))
    figures = len(re.findall(r"!\[", text))
    tags = Counter(tag for tag, _ in elements_of(known).found)
    assert (tags["table"], tags["figure"], tags["svg"]) == (tables, figures, figures)
    assert figures == 8
    assert "86.50 ± 0.50" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("86.50 ± 0.50 ≈ † n = 2", 86.5),
        ("1,020,000 (2.1 %)", 1_020_000),
        ("900,000 to 1,000,000 (3.9 to 4.4 %)", 900_000),
        ("0.0835 %", 0.0835),
        ("−1.5", -1.5),
        ("1e-05", 1e-5),
        ("12 of 20", 12),
        ("< 0.001", 0.001),
        ("> 100", 100),
        ("–", None),
        ("", None),
        ("lr 0.0001, r 32", None),
        ("3rd", None),
        ("2026-11-21", None),
        ("minilm", None),
    ],
)
def test_cells_are_sorted_by_the_number_they_begin_with(text, expected):
    assert number_in(text) == expected


def test_sums_and_baselines_stand_in_the_foot_of_their_table():
    table = "| A | B |\n| :--- | ---: |\n| *x* y | 1 |\n| *mean* | 2 |\n| *Constant prediction* | – |\n"
    html = body_of(table, {}).html
    head, foot = html.split("<tfoot>")
    assert "<em>x</em> y" in head
    assert "mean" in foot
    assert "Constant prediction" in foot
    assert html.count("<tbody>") == html.count("</tbody>") == html.count("</tfoot>") == 1
    assert 'data-sort="1"' in head
    assert 'data-sort=""' in foot
    only = body_of("| A |\n| :--- |\n| *x* |\n", {}).html
    assert "<tfoot>" not in only


def test_pictures_that_are_not_ours_and_links_leave_their_words():
    html = body_of("![alt](http://host/x.png)\n\n[word](http://host) and [more](javascript:x)", {}).html
    assert "host" not in html
    assert "alt" in html
    assert "word and" in html


def test_a_drawing_loses_its_styles_and_keeps_its_look():
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="u" viewBox="0 0 5 5" width="5pt"><metadata>u</metadata>'
        '<defs><style type="text/css">*{stroke-linecap: butt}</style><path id="m" d="M0 0" style="stroke: #222222; '
        'stroke-width: 0.5"/></defs><g clip-path="url(#m)"><use xlink:href="#m" x="1"/></g></svg>'
    )
    assert inline(svg, "one", 'a "b" <c>') == (
        '<svg viewBox="0 0 5 5" role="img" aria-label="a &quot;b&quot; &lt;c&gt;" stroke-linejoin="round" '
        'stroke-linecap="butt"><defs><path id="one-m" d="M0 0" stroke-width="0.5"/></defs>'
        '<g clip-path="url(#one-m)"><use href="#one-m" x="1"/></g></svg>'
    )


def test_a_page_without_figures_and_sections_is_still_a_page():
    tags = [tag for tag, _ in Elements(page("t", "text", {})).found]
    assert "nav" not in tags
    assert tags.count("p") == 1


def test_an_unfinished_sweep_has_a_page_that_says_so():
    sweep = in_memory(
        manifest(["minilm"], ["mrpc"], ["adapter"]), [FakeTrial(cell="minilm/mrpc/adapter", name="a")], {}
    )
    shown = "".join(Elements(page("t", summary(sweep), {})).shown)
    assert "So far:" in shown
    assert "1 cell without a result: minilm/mrpc/adapter (search unfinished)." in shown


def test_lines_of_code_are_not_broken_inside_a_word_with_hyphens():
    code = "peft-sweep run --gpus 0 --out=" + "x-" * 20 + " <b-c>"
    html = body_of(f"```\n{code}\n```", {}).html
    assert re.findall(r'<span class="short">(.*?)</span>', html) == ["peft-sweep", "--gpus", "&lt;b-c&gt;"]
    assert re.sub(r"</?span[^>]*>", "", html) == f"<pre><code>{code.replace('<b-c>', '&lt;b-c&gt;')}\n</code></pre>"
