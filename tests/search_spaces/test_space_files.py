"""What a user's own space file can import."""

from __future__ import annotations

import sys
from pathlib import Path

from search_spaces import loading

SPACE = """
from common import RATES
from search_spaces.language import Space, choice, method

space = Space(
    models=("bert-base-uncased",),
    tasks=("mrpc",),
    methods=(method("full"),),
    search={"lr": choice(*RATES), "batch_size": 8},
)
"""


def make(folder: Path, rates: str) -> str:
    folder.mkdir()
    (folder / "common.py").write_text(f"RATES = {rates}\n")
    (folder / "mine.py").write_text(SPACE)
    return str(folder / "mine.py")


def test_a_space_imports_the_module_beside_it_and_another_space_its_own(tmp_path):
    before = list(sys.path)
    for name, rates in (("one", (1e-4, 2e-4)), ("two", (3e-3,))):
        assert loading.load(make(tmp_path / name, str(rates))).search["lr"].values == rates
    assert sys.path == before
    assert "common" not in sys.modules
