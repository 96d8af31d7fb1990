"""One command over every method: trials of one device worker, engines of their own, and a report that has a row for each."""

import pytest

from tests.fixtures.cli_process import arguments, finish, start, table, write_project
from tests.fixtures.method_settings import SMALL
from trainables.methods import METHODS

pytestmark = pytest.mark.slow

SPACE = """
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, own_search

SMALL = {small!r}
space = Space(
    models=({model!r},),
    tasks=(FileTask(name="markers", train="train.csv", test="test.csv", text="text", label="label"),),
    methods=tuple(own_search(name, **SMALL[name]) for name in SMALL),
    search={{"batch_size": choice(8)}},
    recipe=Recipe(epochs=2, patience=2, max_length=32),
    budget=Budget(trials=1, final_seeds=1),
)
"""


def test_a_sweep_over_every_method_ends_with_a_row_for_each(tmp_path):
    space = write_project(tmp_path, train=64)
    space.write_text(SPACE.format(model=str(tmp_path / "model"), small=SMALL), encoding="utf-8")
    code, errors = finish(
        start(*arguments(space, tmp_path / "out", "--trials-per-gpu", "8"), cwd=tmp_path), timeout=1200
    )
    assert code == 0, errors
    rows = table(tmp_path / "out", "results", ())
    assert {row["method"] for row in rows} == set(METHODS)
