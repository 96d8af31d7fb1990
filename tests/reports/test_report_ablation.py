"""The report of an ablation: its numbers against a second formula, its heat map, what is missing, scores against a scale."""

import json
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, stdev

import pytest

from reports.build import render
from reports.data.store import parse_ablation, read
from reports.data.store_address import DamagedResults
from reports.page.vector import dark_rules
from reports.plots import settings
from reports.plots.canvas import INK, PAPER
from reports.plots.diverging import GAINS, LOSSES, NOTHING, colour_of, signed, step_for
from reports.sections import ablation
from reports.statistics.analysis import analyze
from search_spaces.language import Cell
from search_spaces.records import Ablation
from tests.fixtures.figure_store import in_memory, made_up, with_maps
from tests.fixtures.report_store import final, manifest, new_store, write_sweep
from tests.reports.test_report_figures import assert_readable, contrast, drawn, texts

CELL = Cell(model="minilm", task="mrpc", method="adapter")
DARK_OF = {INK: "#e8e8e8", PAPER: "#16181b"}
GOOD = Ablation(whole=80.0, spans=((70.0, 50.0), (79.0,)), seconds=2.0)


def sweep_with(layers, tasks=("mrpc", "rte"), **more):
    return with_maps(in_memory(*made_up(3, tasks=tasks, trials=3, epochs=4, **more)), "adapter", layers)


def maps_of(sweep, cell):
    finals = sweep.trials[(sweep.trials["cell"] == str(cell)) & (sweep.trials["phase"] == "final")]
    return [sweep.ablations[run] for run in finals["run_id"]]


def test_changes_are_means_over_the_final_seeds_of_score_minus_intact_score():
    sweep = sweep_with(4)
    maps, table = maps_of(sweep, CELL), ablation.rows(sweep).set_index(["task", "first", "last"])
    assert len(table) == 2 * 10
    for first in range(4):
        for last in range(first, 4):
            changes = [one.spans[first][last - first] - one.whole for one in maps]
            row = table.loc[("mrpc", first + 1, last + 1)]
            assert row["change"] == pytest.approx(fmean(changes))
            assert row["change_std"] == pytest.approx(stdev(changes))
            assert row["score"] == pytest.approx(fmean(one.spans[first][last - first] for one in maps))
            assert row["n"] == 3


def test_the_table_names_the_worst_single_layer_and_all_layers():
    maps = {"a": Ablation(whole=80.0, spans=((78.0, 60.0, 40.0), (75.0, 50.0), (79.0,)), seconds=2.0)}
    maps["b"] = replace(maps["a"], whole=82.0, seconds=4.0)
    sweep = sweep_with(3, tasks=("mrpc",), seeds=2)
    sweep = replace(sweep, ablations=dict(zip(sweep.ablations, maps.values(), strict=True)))
    line = ablation.tables(sweep)["ablation"].rows[0]
    assert line[3:] == ("2", "81.00", "−3.67", "−6.00 (layer 2)", "−41.00", "3.0")


def test_the_section_says_what_was_done_and_on_which_split():
    text = ablation.text(sweep_with(3))
    assert text.startswith("## What each layer's adapters are worth")
    assert "*Scores: validation split. These are changes under removal, and no results.*" in text
    for told in ("Scores: validation split", "nothing is re-trained", "no results", "mean over the final seeds"):
        assert told in text
    assert "figures/ablation_adapter_minilm.png" in text


def test_a_sweep_without_an_ablation_has_neither_section_nor_file_nor_figure(tmp_path):
    sweep = in_memory(*made_up(2, tasks=("mrpc",), trials=2, epochs=2))
    render(sweep, tmp_path)
    assert ablation.text(sweep) == ""
    assert not [path for path in tmp_path.rglob("*") if "ablation" in path.name]


def test_a_method_that_cannot_be_removed_and_a_final_without_a_map_are_named():
    sweep = sweep_with(3)
    methods = dict(sweep.manifest.methods)
    label = next(label for label in methods if label != "adapter")
    methods[label] = replace(methods[label], ablated=True)
    kept = {run: one for run, one in sweep.ablations.items() if one not in maps_of(sweep, replace(CELL, task="rte"))}
    sweep = replace(sweep, manifest=replace(sweep.manifest, methods=methods), ablations=kept)
    text = ablation.text(sweep)
    assert (
        f"- {methods[label].title}: no ablation; this method cannot be removed by setting parameters to zero." in text
    )
    assert "1 cell without a stored ablation of a final: minilm/rte/adapter." in text
    assert sweep.ablation_scores[CELL] is not None
    names = [
        name for name, figure in drawn(sweep) if name.startswith("ablation") and assert_readable(name, figure) is None
    ]
    assert names == ["ablation_adapter_minilm"]


@pytest.mark.parametrize(("layers", "tasks"), [(2, 1), (6, 4), (12, 4), (12, 1), (24, 2)])
def test_every_square_up_to_twelve_layers_has_its_number_and_nothing_overlaps(layers, tasks):
    sweep = sweep_with(layers, tasks=("mrpc", "stsb", "cola", "rte")[:tasks])
    figure = next(figure for name, figure in drawn(sweep) if name.startswith("ablation"))
    assert_readable("ablation", figure)
    shown = [text for text, _ in texts(figure)]
    assert "n = 3 final seeds" in " ".join(shown)
    assert "percent points" in " ".join(shown)
    numbers = [text for text in shown if text.lstrip("−+").replace(".", "").isdigit()]
    squares = tasks * layers * (layers + 1) // 2 if layers <= 12 else 0
    assert len(numbers) == squares + tasks * 2 * min(12, layers) + 9  # layers beside and below, the legend


def test_without_numbers_a_gain_still_has_its_sign():
    sweep = sweep_with(24, tasks=("mrpc",))
    for gain, signs in ((0.0, 0), (-30.0, 0), (30.0, 1)):
        spans = tuple(tuple(80 + gain * (first == last == 4) for last in range(first, 24)) for first in range(24))
        found = dict.fromkeys(sweep.ablations, Ablation(whole=80.0, spans=spans, seconds=1.0))
        figure = next(f for name, f in drawn(replace(sweep, ablations=found)) if name.startswith("ablation"))
        assert [text for text, _ in texts(figure)].count("+") == signs


def test_one_final_and_no_final_still_draw():
    one = sweep_with(6, seeds=1)
    assert "n = 1 final seed," in " ".join(
        text for name, f in drawn(one) if name.startswith("abl") for text, _ in texts(f)
    )
    assert ablation.rows(one)["change_std"].isna().all()
    none = replace(one, ablations={})
    assert [name for name, _ in drawn(none) if name.startswith("ablation")] == ["ablation_adapter_minilm"]
    assert len(ablation.rows(none)) == 0


def test_colours_darken_with_the_change_and_carry_readable_numbers_in_both_schemes():
    for arm in ((NOTHING, *LOSSES), (NOTHING, *GAINS)):
        light, dark = ([contrast(getattr(s, n), "#000000") for s in arm] for n in ("colour", "dark"))
        assert all(one / other > 1.15 for one, other in pairwise(light))
        assert all(other / one > 1.15 for one, other in pairwise(dark))
        for one in arm:
            assert contrast(one.colour, one.ink) >= 4.5
            assert contrast(one.dark, DARK_OF[one.ink]) >= 4.5
            assert one is NOTHING or f'fill="{one.colour}"]{{fill:{one.dark}' in dark_rules()


@pytest.mark.parametrize(
    ("largest", "step"), [(0.0, 0.1), (0.4, 0.1), (0.46, 0.2), (9.0, 2), (9.1, 5), (40, 10), (91, 50)]
)
def test_steps_are_round_and_hold_the_largest_change(largest, step):
    assert step_for(largest) == pytest.approx(step)


def test_a_change_has_the_colour_of_the_nearest_step():
    assert colour_of(0.49, 1.0) is NOTHING
    assert colour_of(-0.5, 1.0) is LOSSES[0]
    assert colour_of(2.4, 1.0) is GAINS[1]
    assert colour_of(-99.0, 1.0) is LOSSES[3]
    assert [signed(number, 1) for number in (-0.04, 0.26, -12.0)] == ["0.0", "+0.3", "−12.0"]


@pytest.mark.parametrize("damaged", [False, True])
def test_maps_are_read_from_the_store_and_a_damaged_one_is_an_error(tmp_path, damaged):
    uri = new_store(tmp_path)
    record = manifest(["minilm"], ["mrpc"], ["adapter", "madapter"])
    record["methods"]["adapter"] |= {"ablated": True, "removable": True}
    good, bad = json.dumps(GOOD.to_json()), json.dumps({**GOOD.to_json(), "spans": [[70.0], [79.0]]})
    texts = (good, bad if damaged else None)
    trials = [final(str(CELL), seed, 80.0, ablation=text) for seed, text in enumerate(texts)]
    trials.append(final("minilm/mrpc/madapter", 1, 80.0, ablation=good))  # the space did not ask for it
    write_sweep(uri, record, trials)
    if damaged:
        with pytest.raises(
            DamagedResults, match=r"the file ablation.json of the final .* is damaged: .*good ledger.jsonl"
        ):
            read(uri, "sweep-1")
        return
    sweep = analyze(read(uri, "sweep-1"))
    runs = sweep.trials.set_index("trial")["run_id"]
    assert sweep.ablations == {runs["minilm/mrpc/adapter-final-0"]: GOOD}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"whole": 1, "spans": [], "seconds": 1}', '{"whole": NaN, "spans": [[1]], "seconds": 1}']
)
def test_a_file_that_is_no_ablation_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own message for the first
        parse_ablation(text)


def scales(tasks):
    """Rows of one method that differ in their initial scale, 1e-7 to 1."""
    record, trials, winners = made_up(8, tasks=tasks, trials=2, epochs=2)
    base = record["methods"]["adapter"]
    for power, label in zip(range(-7, 1), record["methods"], strict=True):
        fixed = {"r": 64, "init_scale": float(f"1e{power}")}
        record["methods"][label] = {**base, "name": "adapter", "title": f"Adapter (scale_1e{power})", "fixed": fixed}
    return in_memory(record, trials, winners)


@pytest.mark.parametrize("tasks", [("mrpc",), ("mrpc", "stsb", "cola"), ("mrpc", "stsb", "cola", "rte")])
def test_scores_against_eight_powers_of_ten_are_readable(tasks):
    figure = next(figure for name, figure in drawn(scales(tasks)) if name == "setting_init_scale_minilm")
    assert_readable("setting", figure)
    shown = [text for text, _ in texts(figure)]
    assert "init_scale (logarithmic)" in shown
    assert {"1e-7", "1e-3", "0.01", "1"} <= set(shown)
    assert any(text.startswith("vertical lines: 95 %") for text in shown)


def test_the_scales_are_in_order_with_their_finals():
    sweep = scales(("mrpc",))
    table = settings.rows(sweep, "minilm", "mrpc", "init_scale")
    assert list(table["value"]) == [float(f"1e{power}") for power in range(-7, 1)]
    expected = [sweep.results[Cell(model="minilm", task="mrpc", method=label)].mean for label in sweep.manifest.methods]
    assert list(table["mean"]) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-7, "1e-7"), (3e-5, "3e-5"), (0.01, "0.01"), (1.0, "1"), (64.0, "64"), (0.0, "0"), (1e6, "1e6")],
)
def test_numbers_of_settings_are_short(value, text):
    assert settings.short_number(value) == text
