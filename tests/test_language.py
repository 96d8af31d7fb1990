"""The project speaks the words of its field, each with one meaning: old words stay out, and a name is given once.

`docs/decisions.md` (2026-11-27) has the words and what replaced them. Names on disk are exempt: MLflow keys, event names of the
ledger, fields that enter a trial's id.
"""

import ast
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("search_spaces", "trainables", "orchestrator", "reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERYTHING = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]

# Identifiers of the first release. Each had a meaning that only this project knew.
OLD_NAMES = {
    *(
        "Lane",
        "LaneHost",
        "Resident",
        "Slot",
        "Company",
        "Group",
        "Pace",
        "Question",
        "Clerk",
        "Desk",
        "Registry",
        "Place",
        "Places",
    ),
    *(
        "At",
        "Room",
        "NoRoom",
        "Own",
        "Remote",
        "OwnWeights",
        "RunningPass",
        "Start",
        "Layout",
        "Keeper",
        "Library",
        "Allowance",
    ),
    *(
        "Guardian",
        "Footprint",
        "Length",
        "Display",
        "is_kin",
        "seat_only",
        "curtail",
        "goodbye",
        "asking",
        "seats",
        "seated",
        "turn",
    ),
    # Renamed later.
    *(
        "contenders",
        "competes",
        "frozen_starts",
        "footprint",
        "look_ahead",
        "paces",
        "pace",
        "Look",
        "Mark",
        "Shade",
        "Printed",
        "Pair",
        "Sheet",
        "Page",
        "Frame",
        "Kind",
        "Done",
        "Left",
    ),
}
# Metaphors, and indefinite persons where a trial, a worker or a function is meant.
OLD_WORDS = re.compile(
    r"\b(lanes?|desks?|clerks?|compan(?:y|ies)|neighbours?|guardians?|goodbye|strangers?|stamped|opened once|seat(?:s|ed|ing)?"
    r"|some(?:body|one)|no ?body|every(?:body|one)|any(?:body|one)|whoever)\b",
    re.IGNORECASE,
)

EVENT = '"lanes"'  # the name on disk of the event that says how devices are shared


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tokens(path: Path) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))


def test_identifiers_of_the_first_release_are_gone():
    found = [
        f"{shown(path)}:{token.start[0]}: {token.string}"
        for path in EVERYTHING
        for token in tokens(path)
        if token.type == tokenize.NAME and token.string in OLD_NAMES
    ]
    assert not found, "\n".join(found)


def prose(path: Path) -> list[tuple[int, str]]:
    """(line, text) of all comments and strings of a Python file, or of all lines of a page."""
    if path.suffix != ".py":
        return list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [(token.start[0], token.string) for token in tokens(path) if token.type in kinds and token.string != EVENT]


def test_sentences_have_no_metaphors_and_no_indefinite_persons():
    found = [
        f"{shown(path)}:{line}: {match[0]}"
        for path in [*EVERYTHING, *PAGES]
        if path != Path(__file__).resolve()
        for line, text in prose(path)
        for match in OLD_WORDS.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_a_class_name_stands_for_one_class():
    homes = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(shown(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_a_module_name_stands_for_one_module():
    """Exempt are files of spaces and verbs, whose names users type, and a module that is called like its own package."""
    homes = defaultdict(list)
    for path in SOURCES:
        if path.parent.name in ("spaces", "verbs") or path.stem == "__main__":
            continue
        if path.stem == "__init__":
            homes[path.parent.name].append(shown(path))
        elif path.stem != path.parent.name:
            homes[path.stem].append(shown(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


FOLDERS = sorted({path.parent for path in SOURCES})


@pytest.mark.parametrize("folder", FOLDERS, ids=[shown(folder) for folder in FOLDERS])
def test_no_folder_is_a_heap(folder):
    """About 20 files; folders with one file per variant may hold more."""
    variants = folder.name in ("methods", "spaces")
    assert variants or len(list(folder.glob("*.py"))) <= 22
