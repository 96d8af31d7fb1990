"""A report names the precision in which its results were trained, and a comparison the settings in which two sweeps differ."""

from dataclasses import replace

import pytest

from reports.compare import _facts
from reports.data.store import read
from reports.sections import protocol, results, trace
from reports.statistics.analysis import analyze
from search_spaces.language import Recipe
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    cell = "minilm/mrpc/adapter"
    trials = [FakeTrial(cell=cell, name="a"), *(final(cell, seed, 80.0 + seed) for seed in range(3))]
    uri = new_store(tmp_path_factory.mktemp("store"))
    write_sweep(uri, manifest(["minilm"], ["mrpc"], ["adapter"]), trials, {cell: "a"})
    return analyze(read(uri, "sweep-1"))


def trained_in(sweep, **recipe):
    return replace(sweep, manifest=replace(sweep.manifest, recipe=Recipe(**recipe)))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"precision": "bf16"}, "matrix products in bf16"),
        (
            {"precision": "nf4", "nf4_block_size": 32},
            "frozen linear maps stored in 4 bits (NF4, blocks of 32, double quantisation), matrix products in bf16",
        ),
    ],
)
def test_a_precision_other_than_fp32_is_said_below_the_table_and_in_the_protocol(recipe, words, sweep):
    for section in (results, protocol):
        assert words in section.text(trained_in(sweep, **recipe)), section.__name__
        assert "matrix products" not in section.text(sweep)


def test_settings_of_nf4_are_told_of_sweeps_that_use_it_alone(sweep):
    plain, narrow = (_facts(trained_in(sweep, precision=p).manifest) for p in ("fp32", "nf4"))
    assert {name for name in narrow if narrow[name] != plain.get(name)} == {
        "recipe: precision",
        "recipe: nf4_block_size",
        "recipe: nf4_double_quant",
        "recipe: nf4_compute",
    }
    (recipe,) = trace.rows(trained_in(sweep, precision="nf4"))["recipe"]
    assert '"nf4_block_size": 64' in recipe
    assert "nf4" not in trace.rows(sweep)["recipe"][0]
