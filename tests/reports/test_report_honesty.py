"""What the report refuses, flags, or says beside its numbers; and what its statistics do with a store that holds predictions."""

import json
import shlex
import statistics
from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest

from orchestrator.run import parser
from reports import compare
from reports.__main__ import main
from reports.build import build, summary, write_tables
from reports.data.store import read
from reports.plots import FIGURES, efficiency_curves
from reports.render.commands import cell_command, export_command, finals_command
from reports.render.markdown import Markup, escape
from reports.render.table import Table
from reports.sections import SECTIONS, cost, differences, efficiency, paper_table, results, trace, winners
from reports.sections.paper_table import LatexOptions
from reports.sections.section import Section, results_provenance
from reports.statistics.analysis import analyze
from reports.statistics.expected_best import expected_best, lead_stability
from search_spaces import keys
from search_spaces.language import Cell
from tests.fixtures.bulk_store import answered, write_bulk
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep

METHODS = {"adapter": 0.92, "madapter": 0.91, "full": 0.6}
CELL = "minilm/mrpc/adapter"


def record(sweep="sweep-1", **changes):
    return manifest(["minilm"], ["mrpc", "stsb"], METHODS, sweep, **changes)


def honest_trials(methods=METHODS, seeds=3):
    """Two tries per cell, the second stopped, and finals with predictions of 200 examples: `full` is worse, the adapters are
    alike.
    """
    trials, winners = [], {}
    for task in ("mrpc", "stsb"):
        for method, quality in methods.items():
            cell = f"minilm/{task}/{method}"
            trials += [
                FakeTrial(cell=cell, name=f"{cell}-0", scores=(60.0, 70.0 + 10 * quality)),
                FakeTrial(
                    cell=cell, name=f"{cell}-1", scores=(50.0,), state="STOPPED", params={"lr": 1e-5, "batch_size": 8}
                ),
            ]
            # Active and stored numbers as a mask would leave them; the checkpoint is dense.
            measured = {
                keys.SAVED_BYTES: 4_000_088.0,
                keys.CHECKPOINT_ELEMENTS: 1_000_000.0,
                keys.MEMORY: 512.0,
                keys.COUNTS + "active": 600_000.0,
                keys.COUNTS + "stored_bytes": 2_525_000.0,
            }
            trials += [answered(cell, seed, 200, quality, measured=measured) for seed in range(seeds)]
            winners[cell] = f"{cell}-0"
    return trials, winners


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    address = new_store(tmp_path_factory.mktemp("honest"))
    write_bulk(address, record(), *honest_trials())
    return address


@pytest.fixture(scope="module")
def sweep(uri):
    return analyze(read(uri, "sweep-1"))


def cell(task, method):
    return Cell(model="minilm", task=task, method=method)


def test_rows_written_in_bulk_are_those_of_the_client(tmp_path):
    trials, winners = [FakeTrial(cell=CELL, name="a"), answered(CELL, 1, 20)], {CELL: "a"}
    for folder, write in (("bulk", write_bulk), ("client", write_sweep)):
        (tmp_path / folder).mkdir()
        write(new_store(tmp_path / folder), record(), trials, winners)
    one, other = (analyze(read(f"sqlite:///{tmp_path / name / 'mlflow.db'}", "sweep-1")) for name in ("bulk", "client"))
    pd.testing.assert_frame_equal(one.trials.drop(columns="run_id"), other.trials.drop(columns="run_id"))
    assert one.winners == other.winners
    assert [len(each.labels) for each in one.predictions.values()] == [20]


def test_a_table_selected_on_the_split_it_reports_is_refused(uri, tmp_path, monkeypatch):
    planted = Section(
        rows=results.rows, provenance=lambda sweep: replace(results_provenance(sweep), selected_on="test")
    )
    monkeypatch.setitem(SECTIONS, "planted", planted)
    with pytest.raises(ValueError, match="section 'planted' reports scores of the test split, on which"):
        build(uri, "sweep-1", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["--tracking-uri", uri, "--out", str(tmp_path / "out")]) == 2


def test_a_search_that_has_seen_the_test_split_is_refused(tmp_path):
    uri = new_store(tmp_path)
    write_sweep(uri, record(), [FakeTrial(cell=CELL, name="peeked", test={"accuracy": 90.0}), final(CELL, 1, 80.0)])
    with pytest.raises(
        ValueError, match="trial peeked of minilm/mrpc/adapter belongs to the search and has a score on the test"
    ):
        build(uri, "sweep-1", tmp_path / "out")


def test_a_winner_that_is_not_the_best_on_validation_is_named(tmp_path, sweep):
    uri = new_store(tmp_path)
    tried = [FakeTrial(cell=CELL, name="a", scores=(80.0,)), FakeTrial(cell=CELL, name="b", scores=(70.0,))]
    write_bulk(uri, record(), tried, {CELL: "b"})
    assert "**Not the best on the validation split:** the winners of minilm/mrpc/adapter." in winners.text(
        analyze(read(uri, "sweep-1"))
    )
    assert "Not the best" not in winners.text(sweep)


def test_every_table_with_scores_names_split_rule_seeds_and_tries(uri, sweep, tmp_path):
    shown = {name: section for name, section in SECTIONS.items() if section.provenance is not None}
    assert set(shown) == {
        *("answer", "results", "differences", "efficiency", "ablation", "winners", "front", "search", "views"),
    }
    assert shown.pop("ablation").text(sweep) == "", "none was requested here; see test_report_ablation.py"
    assert shown.pop("front").text(sweep) == "", "this search has one objective; see test_report_front.py"
    text = summary(sweep)
    for section in shown.values():
        told = section.provenance(sweep).caption
        assert all(word in told for word in ("split", "Selected:", "Seeds:", "Tries:"))
        assert text.count(told) == 1
        tables = section.tables(sweep) if section.tables else {}
        assert all(told in table.caption for table in tables.values())
    assert results_provenance(sweep).caption in paper_table.latex(sweep, LatexOptions())
    for section in (differences, efficiency):
        assert "Scores: test split." in section.text(sweep)
    table = results.rows(sweep)
    assert set(table["split"]) == {"test"}
    assert set(table["selected_on"]) == {"validation"}


def test_methods_alike_are_tied_and_a_worse_one_is_not(sweep):
    found = sweep.standings
    for task in ("mrpc", "stsb"):
        ranks = {found[cell(task, m)].best: m for m in ("adapter", "madapter")}
        assert set(ranks) == {True, False}
        assert found[cell(task, ranks[False])].tied
        assert not found[cell(task, "full")].tied
        assert found[cell(task, "full")].p_value < 0.05
    assert not sweep.average_standings["minilm"]["full"].tied
    text = results.text(sweep)
    assert "≈" in text
    assert "| *Smallest visible difference* |" in text


def test_intervals_cover_examples_only_where_predictions_give_the_scores(tmp_path, sweep):
    assert all(standing.with_examples for standing in sweep.standings.values())
    trials, chosen = honest_trials()
    # One final's predictions are of another run.
    wrong = next(place for place, trial in enumerate(trials) if trial.cell == CELL and trial.phase == "final")
    trials[wrong] = replace(trials[wrong], test={"accuracy": trials[wrong].test["accuracy"] - 5})
    uri = new_store(tmp_path)
    write_bulk(uri, record(), trials, chosen)
    found = analyze(read(uri, "sweep-1")).standings
    assert {str(where): standing.with_examples for where, standing in found.items()} == {
        f"minilm/{task}/{method}": task == "stsb" for task in ("mrpc", "stsb") for method in METHODS
    }
    assert "**Seeds alone:** average, mrpc lack predictions" in differences.text(analyze(read(uri, "sweep-1")))


def test_only_real_differences_make_one_method_better(sweep):
    found = sweep.columns["minilm", "mrpc"].significant_pairs
    assert found == {("adapter", "full"), ("madapter", "full")}
    judged = sweep.standings
    best = next(method for method in METHODS if judged[cell("mrpc", method)].best)
    worse = {m for m in METHODS if judged[cell("mrpc", m)].p_value is not None and not judged[cell("mrpc", m)].tied}
    assert {other for one, other in found if one == best} == worse
    assert sweep.interval_coverage == "95 % interval over seeds and test examples"


def test_the_same_store_gives_the_same_intervals(uri, sweep):
    pd.testing.assert_frame_equal(differences.rows(sweep), differences.rows(analyze(read(uri, "sweep-1"))))


def test_differences_name_the_verdict_the_corrected_p_and_what_could_be_seen(sweep):
    table = differences.rows(sweep).set_index(["task", "method"])
    row = table.loc[("mrpc", "full")]
    assert row["verdict"] == "worse"
    assert row["comparisons"] == 3
    assert row["behind_low"] < row["behind"] < row["behind_high"]
    assert row["smallest_visible"] < row["behind"]
    assert sorted(table.loc["average"].index) == sorted(METHODS)


@pytest.mark.parametrize("scores", [[3.0], [1.0, 5.0, 2.0, 2.0], [70.0, 71.5, 60.0, 66.0, 71.5]])
def test_the_expected_best_is_the_mean_over_all_subsets(scores):
    expected = [statistics.fmean(max(chosen) for chosen in combinations(scores, k)) for k in range(1, len(scores) + 1)]
    assert expected_best(scores) == pytest.approx(expected)


def test_the_expected_best_of_thousands_of_tries_stays_exact():
    many = expected_best([float(i) for i in range(3000)])  # E = k (N + 1) / (k + 1) - 1 of 0 ... N - 1
    assert many == pytest.approx([k * 3001 / (k + 1) - 1 for k in range(1, 3001)])


@pytest.mark.parametrize(
    ("found", "settled"),
    [
        ({"a": [1.0, 2.0, 5.0, 6.0], "b": [1.0, 2.0, 3.0, 4.0]}, False),  # b gained 2 where a leads by 2
        ({"a": [1.0, 5.0, 6.0, 7.0], "b": [1.0, 2.0, 3.0, 4.0]}, True),
        ({"a": [1.0, 2.0, 8.0, 9.0], "b": [1.0, 3.0, 3.0, 3.0]}, False),  # b was ahead after half the tries
    ],
)
def test_a_lead_counts_as_settled_only_beyond_what_others_still_gained(found, settled):
    assert lead_stability(found).stable is settled


def test_with_one_try_nothing_is_said_about_more():
    assert lead_stability({"a": [1.0], "b": [2.0]}) is None


def test_failed_tries_count_with_the_lowest_score_of_the_task(tmp_path):
    uri = new_store(tmp_path)
    failed = FakeTrial(cell=CELL, name="f", state="FAILED", scores=(), counts=None)
    others = [
        FakeTrial(cell=CELL, name="a", scores=(80.0,)),
        FakeTrial(cell="minilm/mrpc/full", name="b", scores=(60.0,)),
    ]
    write_sweep(uri, record(), [failed, *others])
    assert analyze(read(uri, "sweep-1")).expected_best[cell("mrpc", "adapter")] == pytest.approx([70.0, 80.0])


def test_costs_are_hours_points_parameters_memory_seconds_and_bytes(sweep):
    row = cost.rows(sweep).set_index(["task", "method"]).loc[("mrpc", "adapter")]
    hours = (3 + 3 * 2) * 36 / 3600  # three epochs of the search, two of each final
    gained = sweep.results[cell("mrpc", "adapter")].mean - 68.38
    assert row["hours"] == pytest.approx(hours)
    assert row["hours_per_point"] == pytest.approx(hours / gained)
    assert (row["trained"], row["active"], row["stored"], row["stored_bytes"]) == (
        1_020_000,
        600_000,
        631_250,
        2_525_000,
    )
    assert (row["saved_bytes"], row["memory_mib"]) == (4_000_088, 512)
    assert row["seconds_per_epoch"] == pytest.approx(36.0)
    assert "| 600,000 | 2,525,000 | 512 | 36 |" in cost.text(sweep)
    assert "older version" not in cost.text(sweep)


def test_the_size_of_a_checkpoint_recorded_by_an_older_version_is_not_shown_as_what_has_to_be_stored(tmp_path):
    uri = new_store(tmp_path)
    measured = {keys.SAVED_BYTES: 4_000_088.0, keys.CHECKPOINT_ELEMENTS: 777_777.0}
    write_sweep(uri, record(), [answered(CELL, seed, 20, measured=measured) for seed in range(3)])
    old = analyze(read(uri, "sweep-1"))
    row = cost.rows(old).set_index(["task", "method"]).loc[("mrpc", "adapter")]
    assert pd.isna(row["active"])
    assert pd.isna(row["stored"])
    assert pd.isna(row["stored_bytes"])
    text = cost.text(old)
    assert "777,777" not in text
    assert "1 cell without active and stored numbers: an older version" in text
    assert [figure.name for figure in FIGURES["efficiency"](old)] == ["efficiency_minilm"]


def test_the_efficiency_figure_can_be_drawn_over_trained_active_and_stored_parameters(sweep):
    names = ["efficiency_minilm", "efficiency_active_minilm", "efficiency_stored_minilm"]
    assert [figure.name for figure in FIGURES["efficiency"](sweep)] == names
    for quantity, size in (("trained", 1_020_000), ("active", 600_000), ("stored", 631_250)):
        table = efficiency_curves.rows(sweep, "minilm", "mrpc", quantity).set_index("method")
        assert table.loc["adapter", "size"] == size


def test_a_cell_leads_to_its_runs_configuration_and_command(sweep):
    row = trace.rows(sweep).set_index(["task", "method"]).loc[("stsb", "madapter")]
    assert json.loads(row["configuration"]) == {"lr": "0.0001", "batch_size": "8"}
    finals = sweep.trials[(sweep.trials["cell"] == "minilm/stsb/madapter") & (sweep.trials["phase"] == "final")]
    assert row["final_runs"].split(" ") == list(finals["run_id"])
    assert row["final_seeds"] == "0 1 2"
    assert (row["commit"], row["dirty"], row["data_fingerprint"], row["encoder_fingerprint"]) == (
        "0123abc",
        False,
        "f00d",
        "abc123",
    )
    assert row["finals_command"] == "python -m orchestrator.reproduce runs/sweep-1 minilm/stsb/madapter"
    first = trace.rows(sweep).iloc[0]
    assert f"{first['finals_command']}\n{first['command']}\n" in trace.text(sweep)


def test_the_finals_of_a_cell_are_found_where_the_sweep_left_them():
    cell = Cell(model="./our model", task="rte", method="adapter")
    found = finals_command("python -m orchestrator.run --space glue --out 'my runs'", "glue-1", cell)
    assert shlex.split(found)[3:] == ["my runs/glue-1", "./our model/rte/adapter"]
    found = export_command("python -m orchestrator.run --space glue --out 'my runs'", "glue-1", cell)
    assert shlex.split(found) == ["peft-sweep", "export", "my runs/glue-1", "./our model/rte/adapter", "--to", "winner"]
    assert finals_command("", "glue-1", cell) == export_command("", "glue-1", cell) == ""


def test_the_command_of_a_cell_is_the_sweeps_own_for_that_cell_alone():
    given = "python -m orchestrator.run --space glue --gpus 2 --models=a,b --tasks mrpc,rte --trials 4 "
    given += "--data-dir 'my data' --report r --budget 40h "
    given += "--set=recipe.patience=3 --set=methods.lora.r=4 --set=methods.adapter.r=8 --set=tasks.mrpc.metric=f1"
    found = cell_command(given, Cell(model="b", task="rte", method="adapter"))
    options = vars(parser().parse_args(shlex.split(found)[3:]))
    wanted = {"models": ["b"], "tasks": ["rte"], "methods": ["adapter"], "trials": 4, "gpus": 2, "space": "glue"}
    assert {name: options[name] for name in wanted} == wanted
    assert (options["data_dir"].name, options["report"].name) == ("my data", "r-one-cell")
    assert options["budget"] is None
    assert options["set"] == ["recipe.patience=3", "methods.adapter.r=8"]
    for unknown in ("", "run 'without an end"):
        assert cell_command(unknown, Cell(model="b", task="rte", method="adapter")) == ""


def test_latex_shows_hostile_text_as_text():
    table = Table(
        header=("A & B", Markup("**bold** 5 %")),
        rows=[("50 % of $x_1$ \\input{x}", Markup(f"*{escape('a*b_c|d')}* ≈ −1 ± 2")), ("#1~^{}", "–")],
        align="lr",
        caption=Markup(escape("100 % <of> it")),
    )
    text = table.latex("name")
    assert r"A \& B & \textbf{bold} 5 \% \\" in text
    assert r"50 \% of \$x\_1\$ \textbackslash{}input\{x\} & \emph{a*b\_c\textbar{}d} $\approx$ $-$1 $\pm$ 2 \\" in text
    assert r"\#1\textasciitilde{}\textasciicircum{}\{\} & -- \\" in text
    assert r"\caption{100 \% \textless{}of\textgreater{} it}" in text


def test_every_latex_table_is_whole(sweep, tmp_path):
    write_tables(sweep, tmp_path)
    for path in tmp_path.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        columns = len(text.split(r"\begin{tabular}{")[1].split("}")[0])
        rows = [line for line in text.split("\n") if line.endswith(r" \\")]
        assert rows
        assert {row.replace(r"\&", "").count("&") for row in rows} == {columns - 1}
        unescaped = text.replace(r"\{", "").replace(r"\}", "")
        assert unescaped.count("{") == unescaped.count("}")


def test_two_sweeps_stand_side_by_side(uri, tmp_path, capsys):
    other = new_store(tmp_path)
    trials, winners = honest_trials({"adapter": 0.6, "madapter": 0.91}, seeds=4)
    renamed = [replace(trial, name=f"other {trial.name}") for trial in trials]
    again = record("sweep-2", commit="fedcba9")
    del again["methods"]["full"]
    write_bulk(other, again, renamed, {where: f"other {name}" for where, name in winners.items()})
    assert main(["compare", "sweep-1", f"{other}#sweep-2", "--tracking-uri", uri, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "compare.md")
    assert "| commit | 0123abc | fedcba9 |" in text
    table = pd.read_csv(tmp_path / "out" / "compare.csv").set_index(["task", "method"])
    assert table.loc[("mrpc", "adapter"), "verdict"] == "A is better"
    assert table.loc[("mrpc", "madapter"), "verdict"] == "tied"
    assert table.loc[("mrpc", "full"), "verdict"] == "only in A"
    assert (table.loc[("mrpc", "adapter"), "n_a"], table.loc[("mrpc", "adapter"), "n_b"]) == (3, 4)
    assert r"\begin{tabular}" in (tmp_path / "out" / "compare.tex").read_text(encoding="utf-8")


def test_a_sweep_beside_itself_has_all_finals_in_common(sweep):
    assert set(compare.rows(sweep, sweep)["verdict"]) == {"3 finals in common"}
    assert compare.setup_differences(sweep.manifest, sweep.manifest) == {}


def test_scores_on_other_data_are_not_compared(sweep, tmp_path):
    uri, other = new_store(tmp_path), record("sweep-2")
    other["tasks"]["mrpc"]["split"] = "beef"
    write_bulk(uri, other, *honest_trials())
    table = compare.rows(sweep, analyze(read(uri, "sweep-2"))).set_index("task")
    assert set(table.loc["mrpc", "verdict"]) == {"other data, metric or model"}


def test_an_unknown_sweep_to_compare_is_bad_input(uri, capsys):
    assert main(["compare", "sweep-1", "sweep-9", "--tracking-uri", uri]) == 2
    assert "did you mean 'sweep-1'" in capsys.readouterr().err
