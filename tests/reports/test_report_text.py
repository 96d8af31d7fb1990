"""Foreign text in Markdown and CSV: it shows as itself and does nothing else."""

import csv
import html
import re

import pandas as pd
import pytest

from reports.build import summary, write_tables
from reports.data.store import read
from reports.plots.figure_pages import file_name
from reports.plots.method_styles import FAMILIES
from reports.render import csv_files, markdown
from reports.render.markdown import Markup
from reports.render.table import Table
from reports.sections.results import table
from reports.statistics.analysis import analyze
from search_spaces import keys
from tests.fixtures.figure_store import in_memory, made_up
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep

HOSTILE = (
    "a | b",
    "x\\| y",
    "`code` ``two``",
    "</td><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![i](http://host/x.png)",
    "one\ntwo\r\n| three |",
    "\x1b[31mred\x1b[0m",
    "\u202egnirts",
    "**bold**",
    "&lt;b&gt;",
)


def split_row(line):
    """Cells of a table's line by GitHub's rule: a bar after a backslash is none."""
    return re.split(r"(?<!\\)\|", line.strip().strip("|"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_cell_breaks_neither_the_row_nor_the_page(text):
    found = (
        Table(header=("one", "two"), rows=[(text, "next")], align="ll", caption=Markup("text")).markdown().split("\n")
    )
    assert len(found) == 3
    assert len(split_row(found[2])) == 2
    cell = found[2]
    assert "<" not in cell
    assert not re.search(r"(?<!\\)[`\[*]", cell)
    assert "\x1b" not in cell
    assert "\u202e" not in cell


def test_escaped_text_still_says_what_it_said():
    shown = html.unescape(re.sub(r"\\([\\|`*$\[\]])", r"\1", markdown.escape("a | <b> `c` [d] *e* $f$ & \\ &lt;")))
    assert shown == "a | <b> `c` [d] *e* $f$ & \\ &lt;"


def test_text_of_a_megabyte_is_cut():
    assert len(markdown.escape("x" * 1_000_000)) <= markdown.LONGEST


def test_a_code_block_cannot_be_closed_from_inside():
    block = markdown.fence("before\n```\n````\nafter")
    assert block.startswith("`````text\n")
    assert block.endswith("\n`````")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_csv_cells_that_could_be_formulas_are_defused(tmp_path, text):
    csv_files.write_csv(pd.DataFrame({text: [text, "plain"], "number": [-1.5, 2.0]}), tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert (header, first, second) == ([f"'{text}", "number"], [f"'{text}", "-1.5"], ["plain", "2.0"])


def test_a_sweep_full_of_hostile_text_gives_whole_tables(tmp_path):
    record = manifest(["minilm"], ["mrpc"], ["adapter"], stamp=["<b>\n# no heading"], device="cpu\n\n<script>")
    record["title"] = record["methods"]["adapter"]["title"] = record["tasks"]["mrpc"]["title"] = "a|b\n<i>`$x$ [l](u)"
    record["command"] = "run\n```\n# not a heading"
    failed = final("minilm/mrpc/adapter", 1, None, tags={keys.REASON: '=HYPERLINK("x")|<img src=x>\n| a'})
    uri = new_store(tmp_path)
    write_sweep(uri, record, [FakeTrial(cell="minilm/mrpc/adapter", name="a"), failed])
    sweep = analyze(read(uri, "sweep-1"))
    text = summary(sweep)
    write_tables(sweep, tmp_path)
    prose = re.sub(r"(?s)^(`{3,})text\n.*?\n\1$", "", text, flags=re.MULTILINE)
    assert "<" not in prose
    assert "# no heading" not in re.findall(r"^.*", prose, flags=re.MULTILINE)
    widths = [
        [len(split_row(line)) for line in block.split("\n")]
        for block in prose.strip().split("\n\n")
        if block.startswith("|")
    ]
    assert widths
    assert all(len(set(block)) == 1 for block in widths)
    assert "'=HYPERLINK" in (tmp_path / "trials.csv").read_text(encoding="utf-8")


def test_models_given_as_directories_or_hub_ids_get_safe_figure_names_of_their_own():
    names = [file_name(model) for model in ("minilm", "./my models/encoder", "owner/encoder", "../encoder", "a" * 300)]
    assert names[0] == "minilm"
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name) for name in names)


def test_methods_are_grouped_by_family_and_ordered_by_parameters():
    sweep = in_memory(*made_up(16, tasks=("mrpc",), trials=2))
    labels = {facts.title: label for label, facts in sweep.manifest.methods.items()}
    shown = [labels[str(row[0])] for row in table(sweep, "minilm").rows if str(row[0]) in labels]
    trained = {cell.method: result.counts.trained for cell, result in sweep.results.items()}
    keys = [(list(FAMILIES).index(sweep.manifest.methods[label].family), trained[label]) for label in shown]
    assert len(shown) == 16
    assert keys == sorted(keys)
    assert shown != list(sweep.manifest.methods)
