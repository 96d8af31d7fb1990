"""Every fault and wrong input of docs/reliability.md has a test that exists, or a reason why it has none."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [[part.strip() for part in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("letter", "number"), [("F", 55), ("B", 30)])
def test_every_fault_and_every_input_has_a_row_with_a_test_or_a_reason(letter, number):
    rows = {row[0]: row for row in ROWS if re.fullmatch(rf"{letter}\d\d", row[0])}
    assert list(rows) == [f"{letter}{i:02}" for i in range(1, number + 1)]
    for row in rows.values():
        assert len(row) == 5
        assert "`tests/" in row[3] or row[4].startswith("not injected: "), row


@pytest.mark.parametrize("file", sorted({file for file, _ in TESTS}))
def test_the_tests_that_the_page_names_exist(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for other, name in TESTS if other == file} <= functions
