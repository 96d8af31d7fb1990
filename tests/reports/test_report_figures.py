"""Figures: their numbers against a second formula, and that nothing in them overlaps, is cut off or shown twice."""

import math
from itertools import combinations, pairwise
from statistics import fmean

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from scipy import stats

from reports.plots import FIGURES, curves, efficiency_curves, label_placement, search_history, settings, tries
from reports.plots.canvas import WIDTH, score_margin, truncate_to_width, width_of
from reports.plots.drawing import STYLE
from reports.plots.method_styles import FAMILIES, family_style, methods_by_family
from reports.sections import results
from search_spaces.language import Cell
from tests.fixtures.figure_store import in_memory, made_up
from tests.fixtures.report_store import KNOWN, FakeTrial, manifest

CELL = Cell(model="minilm", task="mrpc", method="adapter")


@pytest.fixture
def known(known_sweep):
    return known_sweep


def drawn(sweep):
    """Every figure of the sweep with its name, laid out."""
    with mpl.rc_context(STYLE):
        for kind in FIGURES.values():
            for entry in kind(sweep):
                figure = entry.draw()
                figure.draw_without_rendering()
                yield entry.name, figure


def texts(figure):
    """Visible texts with their boxes, in pixels."""
    renderer = figure.canvas.get_renderer()
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    ticks = {
        label for axes in figure.axes if axes.axison for axis in (axes.xaxis, axes.yaxis) for label in _outside(axis)
    }
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found if text not in ticks]


def _outside(axis):
    """Tick labels beyond the limits: matplotlib makes them and does not draw them."""
    low, high = sorted(axis.get_view_interval())
    all_labels = {label for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)}
    shown = {t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high} if axis.axes.axison else set()
    return all_labels - shown


def assert_readable(name, figure):
    found = texts(figure)
    edge = figure.bbox
    for text, box in found:
        assert box.x0 >= edge.x0 - 1, (name, text)
        assert box.x1 <= edge.x1 + 1, (name, text)
        assert box.y0 >= edge.y0 - 1, (name, text)
        assert box.y1 <= edge.y1 + 1, (name, text)
    for (one, first), (other, second) in combinations(found, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width < 1.5 or height < 1.5, (name, one, other)


@pytest.mark.parametrize(
    ("number", "tasks"),
    [(1, ("mrpc",)), (4, ("mrpc", "stsb", "cola", "rte")), (6, ("mrpc",)), (12, ("mrpc",)), (32, ("mrpc",))],
)
def test_no_text_overlaps_another_or_leaves_the_sheet(number, tasks):
    for name, figure in drawn(in_memory(*made_up(number, tasks=tasks, trials=4, epochs=6))):
        assert_readable(name, figure)


def test_long_names_one_seed_tiny_spreads_and_missing_cells_stay_readable():
    record, trials, winners = made_up(12, tasks=("mrpc", "stsb"), seeds=1, spread=0.001)
    for facts in record["methods"].values():
        facts["title"] += " with a title that goes on and on for longer than any column"
    record["tasks"]["mrpc"]["title"] = record["title"] = "A name of the user's own that is far too long for a figure"
    record["stamp"] = ["--epochs 2 instead of 20"]
    trials = [trial for trial in trials if not trial.cell.startswith("minilm/stsb/l")]
    for name, figure in drawn(in_memory(record, trials, winners)):
        assert_readable(name, figure)
        shown = " ".join(text for text, _ in texts(figure))
        assert "so far: " in shown
        assert "changed from the space" in shown


def test_a_sweep_that_has_not_begun_still_gives_every_figure():
    record, _, _ = made_up(4, tasks=("mrpc",))
    for name, figure in drawn(in_memory(record, [], {})):
        assert_readable(name, figure)
        shown = [text for text, _ in texts(figure)]
        assert "not started" in shown or "no trial has ended with a score" in shown or "no final has finished" in shown


def test_every_figure_says_its_unit_and_its_n():
    for name, figure in drawn(in_memory(*made_up(4))):
        shown = " ".join(text for text, _ in texts(figure))
        assert "percent points" in shown, name
        assert any(word in shown for word in ("n = 3 final seeds", "n = 12 tries", "12 trials")), name


def test_families_differ_in_marker_and_have_contrast_on_white_and_on_black():
    assert len({style.marker for style in FAMILIES.values()}) == len(FAMILIES)
    for family in FAMILIES.values():
        assert contrast(family.colour, "#ffffff") >= 4.5
        assert contrast(family.dark, "#16181b") >= 4.5


def contrast(one, other):
    """WCAG 2.2: relative luminances of sRGB colours, from 1 to 21."""
    values = sorted(
        sum(w * linear(c) for w, c in zip((0.2126, 0.7152, 0.0722), to_rgb(x), strict=True)) for x in (one, other)
    )
    return (values[1] + 0.05) / (values[0] + 0.05)


def linear(channel):
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def test_methods_stand_by_family_and_then_by_size():
    sweep = in_memory(*made_up(16, tasks=("mrpc",)))
    results = sweep.results
    order = methods_by_family(sweep, "minilm")
    families = [sweep.manifest.methods[label].family for label in order]
    assert families == sorted(families, key=list(FAMILIES).index)
    for one, other in pairwise(order):
        if sweep.manifest.methods[one].family == sweep.manifest.methods[other].family:
            sizes = [results[Cell(model="minilm", task="mrpc", method=m)].counts.trained for m in (one, other)]
            assert sizes[0] <= sizes[1]
    assert family_style("a family of one's own").marker not in {known.marker for known in FAMILIES.values()}


def test_budget_curves_are_of_the_tries_that_ended(known):
    table = tries.rows(known, "minilm", "mrpc", ["adapter"])
    # Best epochs 70, 81, 50 (stopped) and 80.
    assert table["expected"].iloc[0] == pytest.approx(fmean((70, 81, 50, 80)))
    assert table["expected"].iloc[-1] == 81
    assert list(table["planned"]) == [4] * 4
    assert tries.rows(known, "bert-base-uncased", "stsb", ["madapter"]).empty


def test_without_predictions_bands_are_students_intervals_with_a_moderated_variance(known):
    """The variance between seeds is drawn towards that of the column's other cells, which adds degrees of freedom."""
    own = stats.ttest_1samp(KNOWN["minilm/mrpc/full"], 0).confidence_interval(0.95)
    variance = known.columns["minilm", "mrpc"].means["full"].seed_variance
    half = stats.t.ppf(0.975, variance.df) * variance.value**0.5
    row = efficiency_curves.rows(known, "minilm", "mrpc").set_index("method").loc["full"]
    assert (row["low"], row["high"]) == pytest.approx((85.0 - half, 85.0 + half))
    assert variance.df > 2
    assert half < (own.high - own.low) / 2


def test_figures_and_tables_show_the_same_intervals(known):
    table = results.rows(known).set_index(["model", "task", "method"])
    for where in (("minilm", "mrpc"), ("minilm", "stsb"), ("bert-base-uncased", "mrpc")):
        for row in efficiency_curves.rows(known, *where).itertuples():
            assert (row.low, row.high) == tuple(table.loc[(*where, row.method), ["low", "high"]])


def test_the_front_rises_only_where_a_difference_is_real():
    better = {("b", "a"), ("d", "a"), ("d", "b"), ("d", "c")}  # c is ahead of b, but not beyond noise
    assert efficiency_curves.front("abcd", [1, 2, 3, 4], [80, 82, 82.5, 85], better) == ["a", "b", "d"]
    assert efficiency_curves.front("dcba", [4, 3, 2, 1], [85, 82.5, 82, 80], better) == ["a", "b", "d"]
    assert efficiency_curves.front("ab", [1, 2], [80, 90], set()) == ["a"]


def test_rows_of_the_efficiency_figure_are_the_finals(known):
    table = efficiency_curves.rows(known, "minilm", "mrpc").set_index("method")
    assert table.loc["adapter", "mean"] == pytest.approx(86.5)
    assert table.loc["adapter", "size"] == 1_000_000
    assert (table.loc["adapter", "n"], table.loc["adapter", "planned"]) == (3, 3)
    # Adapter 86.5 ± 1.24 and MAdapter 80.2 ± 0.50 train the same number; fine-tuning 85 ± 2.48 is not above the adapter.
    assert list(table.index[table["front"]]) == ["adapter"]
    waiting = efficiency_curves.rows(known, "bert-base-uncased", "stsb")
    assert list(waiting["method"]) == ["full"]
    assert math.isnan(waiting["low"].iloc[0])
    assert not waiting["front"].any()


def test_series_are_rows_of_one_method_that_differ_in_one_number():
    record = manifest(["minilm"], ["mrpc"], ["full"])
    base = record["methods"]["full"]
    for label, fixed in {
        "a8": {"r": 8, "place": "ffn"},
        "a16": {"r": 16, "place": "ffn"},
        "a64": {"r": 64, "place": "ffn"},
        "other": {"r": 8, "place": "attention"},
    }.items():
        record["methods"][label] = {**base, "name": "adapter", "title": label, "kind": "Adapter", "fixed": fixed}
    found = settings.series(in_memory(record, [], {}).manifest)
    assert [(one.setting, one.labels, one.values) for one in found] == [("r", ("a8", "a16", "a64"), (8, 16, 64))]
    assert found[0].title == "Adapter (place ffn)"


def test_a_difference_within_all_intervals_does_not_fill_a_panel():
    alike = pd.DataFrame({"mean": [73.4, 73.5], "low": [69.0, 69.5], "high": [77.8, 77.5]})
    assert score_margin(alike) == pytest.approx(4.2)
    vast = alike.assign(low=0.0, high=100.0)
    assert score_margin(vast) == 20.0
    apart = pd.DataFrame({"mean": [70.0, 80.0], "low": [69.0, 79.0], "high": [71.0, 81.0]})
    assert score_margin(apart) == 5.0
    assert score_margin(alike.assign(low=math.nan, high=math.nan)) == 0.5


def test_a_line_is_a_string_of_boxes_without_gaps():
    boxes = efficiency_curves._line_boxes(np.array([[0.0, 0.0], [30.0, 40.0], [30.0, 40.5]]), 3.0)
    steps = [math.dist(one[:2], other[:2]) for one, other in pairwise(boxes)]
    assert max(steps) < 8
    assert (boxes[0][:2], boxes[-1][2:]) == ((-3.0, -3.0), (33.0, 43.5))


def test_figures_of_settings_exist_only_for_spaces_with_such_rows(known):
    assert settings.figures(known) == []


def test_curves_hold_every_epoch_of_every_trial(known):
    table = curves.rows(known)
    mine = table[table["cell"] == "minilm/mrpc/adapter"]
    assert sorted(len(rows) for _, rows in mine[mine["phase"] == "search"].groupby("run_id")) == [1, 2, 2, 3]
    assert mine[mine["phase"] == "final"]["run_id"].nunique() == 3
    assert set(mine[mine["state"] == "STOPPED"]["score"]) == {50.0}


def test_the_search_view_shows_each_trial_at_its_rate_and_rings_one_winner(known):
    table = search_history.rows(known)
    mine = table[table["cell"] == "minilm/mrpc/adapter"].set_index("trial")
    assert len(mine) == 4
    assert mine.loc["minilm/mrpc/adapter-1", ["lr", "batch_size", "score"]].tolist() == [5e-4, 8, 81.0]
    assert list(mine.index[mine["winner"]]) == ["minilm/mrpc/adapter-1"]
    assert mine["stopped"].sum() == 1


@pytest.mark.parametrize("rates", [(3e-3,), (2e-3, 4e-3), (1e-2,)])
def test_the_search_view_of_few_rates_has_a_numbered_axis(rates):
    record = manifest(["minilm"], ["mrpc"], ["adapter"])
    record["methods"]["adapter"]["searched"]["lr"] = {"choice": list(rates)}
    trials = [FakeTrial(cell=str(CELL), name=f"t{rate}", params={"lr": rate, "batch_size": 8}) for rate in rates]
    figure = next(figure for name, figure in drawn(in_memory(record, trials, {})) if name.startswith("search"))
    assert any(text.startswith("1e-") for text, _ in texts(figure))


def test_trials_without_a_rate_or_batch_size_do_not_break_the_search_view():
    record = manifest(["minilm"], ["mrpc"], ["adapter"])
    sweep = in_memory(
        record,
        [FakeTrial(cell=str(CELL), name="a", params={"lr": 1e-3}), FakeTrial(cell=str(CELL), name="b", params={})],
        {},
    )
    assert search_history.rows(sweep)["lr"].tolist() == [1e-3]
    assert all(figure for _, figure in drawn(sweep))


def test_stacked_labels_keep_their_distance_order_and_bounds():
    found = label_placement.stacked([5.0, 5.1, 5.05, 0.0, 9.9], 1.0, 0.0, 10.0)
    ranked = sorted(found)
    assert all(second - first >= 1 - 1e-9 for first, second in pairwise(ranked))
    assert [sorted(found).index(height) for height in found] == [1, 3, 2, 0, 4]
    assert ranked[0] >= 0
    assert ranked[-1] <= 10
    assert label_placement.stacked([], 1.0, 0.0, 10.0) == []


def test_texts_are_cut_to_the_width_they_have():
    assert truncate_to_width("short", WIDTH, 7) == "short"
    cut = truncate_to_width("far too long for the place " * 9, 1.0, 7)
    assert cut.endswith("…")
    assert width_of(cut, 7) <= 1.0
    assert truncate_to_width("no room", 0.01, 7) == ""
