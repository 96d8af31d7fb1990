"""The pages name only files that exist, and the tree in docs/architecture.md shows every folder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/command_line.md", "docs/performance.md"]
TOP = (
    "orchestrator",
    "trainables",
    "search_spaces",
    "reports",
    "tests",
    "benchmarks",
    "docs",
    "families",
    "forms",
    "spaces",
)
PATH = re.compile(r"`((?:" + "|".join(TOP) + r")/[\w./-]*)`")
LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for name in PATH.findall(text) if "NAME" not in name}
    inside = ("families/", "forms/", "spaces/")
    missing = [name for name in named if not (ROOT / name).exists() and not name.startswith(inside)]
    missing += [name for name in LINK.findall(text) if not ((ROOT / page).parent / name).exists()]
    assert not [name for name in missing if name not in ("reports/summary.md", "reports/summary.html")]


def test_the_tree_shows_every_folder_and_only_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text[text.index("## The tree") : text.index("## The way of a trial")]
    packages = ("search_spaces", "orchestrator", "trainables", "reports")
    folders = {path.parent for package in packages for path in (ROOT / package).rglob("*.py")}
    for folder in folders:
        assert re.search(rf"^\s+{folder.name}/", tree, re.M), folder
    names = {path.name for package in packages for path in (ROOT / package).rglob("*.py")}
    assert set(re.findall(r"\b\w+\.py\b", tree)) <= names
