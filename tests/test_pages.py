"""The pages name only files that exist, and the tree in docs/architecture.md shows every folder."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fixtures.plugin_package import METHOD

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(page for page in DOCS if page != "docs/decisions.md")]
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


def test_the_site_lists_every_page_once():
    lines = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").splitlines()
    listed = sorted(re.findall(r"- (?:[^:\n]+: )?([\w/]+\.md)$", "\n".join(lines[lines.index("nav:") :]), re.MULTILINE))
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert listed == sorted(str(path) for path in pages if path.parts[0] != "results" or len(path.parts) == 2)


def test_the_method_in_the_page_on_packages_is_the_one_that_is_tested():
    assert METHOD.strip() in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_the_changelog_begins_with_what_comes_and_has_the_version_of_the_package():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert headings[0] == "Unreleased"
    assert version in headings


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the extra [docs] is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "own_search" in (tmp_path / "api" / "spaces" / "index.html").read_text(encoding="utf-8")
