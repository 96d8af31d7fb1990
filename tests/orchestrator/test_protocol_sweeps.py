"""A paper's protocol as a whole sweep with a real small encoder: every grid point on every seed, published beside measured."""

import pytest

from tests.fixtures.cli_process import arguments, finish, start, table, write_project

pytestmark = pytest.mark.slow

SPACE = """
from dataclasses import replace

from search_spaces.language import FileTask, choice
from search_spaces.loading import load

paper = load("madapter_depth")
markers = FileTask(name="markers", train="train.csv", test="test.csv", text="text", label="label")
space = replace(
    paper,
    models=({model!r},),
    tasks=(markers,),
    methods=tuple(replace(entry, settings={{**entry.settings, "r": 4}}) for entry in paper.methods),
    search={{**paper.search, "lr": choice(1e-3, 1e-2)}},
    recipe=replace(paper.recipe, epochs=2, patience=2, max_length=32),
)
"""


def test_every_point_of_a_grid_is_trained_on_every_seed_and_stands_beside_the_paper(tmp_path):
    space = write_project(tmp_path, train=64)
    space.write_text(SPACE.format(model=str(tmp_path / "model")), encoding="utf-8")
    code, errors = finish(start(*arguments(space, tmp_path / "out"), cwd=tmp_path), timeout=900)
    assert code == 0, errors
    assert all(
        (row["tried"], row["finals"]) == (2 * 2 * 3, 3) for row in numbers(tmp_path, "budget", ("tried", "finals"))
    )
    tried = [row for row in table(tmp_path / "out", "trials", ()) if row["phase"] == "search"]
    seeds = {}
    for row in tried:
        seeds.setdefault((row["method"], row["param.lr"], row["param.batch_size"]), []).append(row["param.seed"])
    assert len(seeds) == 3 * 4
    assert all(sorted(map(int, found)) == [0, 1, 2] for found in seeds.values())
    summary = next((tmp_path / "out").rglob("summary.md")).read_text(encoding="utf-8")
    assert "the mean over 3 seeds" in summary
    assert "| MAdapter, 3 middle layers | RoBERTa_base |" in summary


def numbers(folder, name, columns):
    return [{key: int(row[key]) for key in columns} for row in table(folder / "out", name, ())]
