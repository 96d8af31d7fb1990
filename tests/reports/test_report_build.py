"""The report as a whole: complete or absent, the same bytes for the same store, sensible for every odd sweep."""

import json
import os
import re
import subprocess
import sys
import time

import pandas as pd
import pytest

from reports import build as build_module
from reports.__main__ import main
from reports.build import build
from reports.data.manifest import parse
from reports.data.store import read
from reports.sections import SECTIONS
from reports.sections.section import Section
from reports.statistics.analysis import analyze
from tests.fixtures.bulk_store import answered, write_bulk
from tests.fixtures.report_store import FakeTrial, final, known_store, manifest, new_store, write_sweep

CELL = "minilm/mrpc/adapter"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary_of(tmp_path, trials, winners=None, **changes):
    uri = new_store(tmp_path)
    write_sweep(uri, manifest(["minilm"], ["mrpc"], ["adapter", "madapter"], **changes), trials, winners)
    return build(uri, "sweep-1", tmp_path / "out").read_text(encoding="utf-8")


def test_the_command_line_writes_summary_figures_and_tables(tmp_path, capsys):
    assert main(["--tracking-uri", known_store(), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "summary.md")
    found = files(tmp_path / "out")
    kinds = ("efficiency", "tries", "search", "curves")
    figures = {f"figures/{k}_{m}.{e}" for k in kinds for m in ("minilm", "bert-base-uncased") for e in ("png", "svg")}
    tidy = ("results", "differences", "cost", "winners", "search", "budget", "trace", "trials")
    per_model = [f"{name}_{number}" for name in ("results", "parameters") for number in (1, 2)]
    shown = ("tasks", "differences", "cost", "winners", "search", "budget", "configurations", "runs")
    papers = [f"paper_{name}" for name in (1, 2, 3, "figure_2")]
    tables = {f"tables/{name}.csv" for name in tidy} | {f"tables/{name}.tex" for name in (*per_model, *shown, *papers)}
    assert set(found) == {"summary.md", "summary.html", "leaderboard.json"} | figures | tables
    links = re.findall(r"\]\((figures/[^)]+)\)", found["summary.md"].decode())
    assert set(links) == figures


def test_the_leaderboard_has_the_numbers_of_the_tables_and_the_best_first(tmp_path):
    out, listed = tmp_path / "out", tmp_path / "listed"
    out.mkdir()
    (out / "mine.txt").write_text("no file of the report")
    assert main(["--tracking-uri", known_store(), "--out", str(out), "--file-list", str(listed)]) == 0
    assert set(listed.read_text().splitlines()) == set(files(out)) - {"mine.txt"}
    board = json.loads((out / "leaderboard.json").read_text())
    rows = pd.DataFrame(board["data"], columns=board["columns"]).set_index(["model", "task", "method"])
    rows = rows.astype(dict.fromkeys(("mean", "sd", "low", "high", "trained", "p", "behind"), float))
    results, differences = (pd.read_csv(out / "tables" / f"{name}.csv") for name in ("results", "differences"))
    results = results[results["is_score"]].set_index(["model", "task", "method"]).loc[rows.index]
    assert rows["n"].tolist() == results["n"].tolist()
    for ours, theirs in (("mean", "mean"), ("sd", "std"), ("low", "low"), ("high", "high"), ("trained", "trained")):
        assert rows[ours].tolist() == pytest.approx(results[theirs].tolist(), nan_ok=True), ours
    judged = differences.set_index(["model", "task", "method"]).loc[rows.dropna(subset="mean").index]
    known = rows.loc[judged.index]
    assert known["verdict"].tolist() == judged["verdict"].tolist()
    assert known["p"].tolist() == pytest.approx(judged["p_corrected"].tolist(), nan_ok=True)
    assert known["behind"].tolist() == pytest.approx(judged["behind"].tolist(), nan_ok=True)
    for _, column in known.groupby(["model", "task"], sort=False):
        assert column["mean"].is_monotonic_decreasing


def test_a_report_is_written_again_beside_an_earlier_one(tmp_path):
    """From a folder of the user's, where reports/ is the earlier report and no package of ours."""
    uri = known_store()
    for folder in ("figures", "tables"):
        (tmp_path / "reports" / folder).mkdir(parents=True)
    command = [sys.executable, "-m", "reports", "--tracking-uri", uri]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "reports/summary.md")), done.stderr


def test_the_same_store_gives_the_same_bytes(tmp_path):
    build(known_store(), "sweep-1", tmp_path / "one")
    build(known_store(), "sweep-1", tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_failing_build_leaves_the_old_report_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "out"
    build(known_store(), "sweep-1", out)
    (out / "mine.txt").write_text("stays")
    before = files(out)

    def broken(sweep):
        raise RuntimeError("no disk")

    monkeypatch.setitem(SECTIONS, "trials", Section(rows=broken))
    with pytest.raises(RuntimeError):
        build(known_store(), "sweep-1", out)
    assert files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_of_others_in_the_folder_survive_a_build(tmp_path):
    (tmp_path / "out" / "tables").mkdir(parents=True)
    (tmp_path / "out" / "tables" / "mine.txt").write_text("stays")
    build(known_store(), "sweep-1", tmp_path / "out")
    assert (tmp_path / "out" / "tables" / "mine.txt").read_text() == "stays"


@pytest.mark.parametrize("rate", [5e-4, 1e-3])
def test_a_space_of_a_single_learning_rate_has_its_figures(tmp_path, rate):
    given = {"params": {"lr": rate, "batch_size": 16}}
    trials = [FakeTrial(cell=CELL, name="a", **given), *(final(CELL, seed, 80.0 + seed, **given) for seed in (1, 2))]
    uri, record = new_store(tmp_path), manifest(["minilm"], ["mrpc"], ["adapter"])
    record["methods"]["adapter"] |= {"fixed": {"lr": rate}, "searched": {"batch_size": {"choice": [8, 16]}}}
    write_sweep(uri, record, trials, {CELL: "a"})
    build(uri, "sweep-1", tmp_path / "out")
    assert "<!-- 1e-3 -->" in (tmp_path / "out" / "figures" / "search_minilm.svg").read_text(encoding="utf-8")


def test_where_nothing_was_searched_the_report_does_not_talk_of_a_search_that_might_go_on(tmp_path):
    given = {"params": {"lr": 1e-3, "batch_size": 16}}
    trials = [FakeTrial(cell=CELL, name="a", **given), *(final(CELL, seed, 80.0 + seed, **given) for seed in (1, 2))]
    uri, record = new_store(tmp_path), manifest(["minilm"], ["mrpc"], ["adapter"])
    record["methods"]["adapter"] |= {"fixed": given["params"], "searched": {}}
    write_sweep(uri, record, trials, {CELL: "a"})
    text = build(uri, "sweep-1", tmp_path / "out").read_text(encoding="utf-8")
    assert "Would more search change the order?" not in text
    assert "nothing was searched" in text
    figures = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {"efficiency_minilm", "curves_minilm"}


def test_methods_stand_in_the_order_of_the_space_whatever_the_store_did_to_it(tmp_path):
    record = manifest(["minilm"], ["mrpc", "stsb"], ["adapter", "full", "madapter"])
    order = ["madapter", "full", "adapter"]
    resolved = {"tasks": [{"name": "stsb"}, "mrpc"], "methods": [{"label": label} for label in order]}
    found = parse({**record, "resolved": resolved})
    assert (list(found.methods), list(found.tasks)) == (order, ["stsb", "mrpc"])
    assert list(parse(record).methods) == ["adapter", "full", "madapter"]


def test_code_of_earlier_calls_is_told(tmp_path):
    text = summary_of(tmp_path, [final(CELL, 1, 80.0)], earlier_code=[["fe12", True], ["9a0b", False]])
    assert (
        "Code: commit 0123abc; earlier calls of this sweep: commit fe12, with uncommitted changes; commit 9a0b\n"
        in text
    )


def test_a_long_list_of_reductions_is_shown_to_its_end(tmp_path):
    stamp = [f"--methods {'m' * 250}", "--seeds 2 instead of 3", "--epochs 3 instead of 20"]
    text = summary_of(tmp_path, [final(CELL, 1, 80.0)], stamp=stamp)
    assert f"{stamp[0]}; {stamp[1]}; {stamp[2]}\n" in text


def test_a_model_may_be_a_path(tmp_path):
    uri, cell = new_store(tmp_path), "/models/our encoder/mrpc/adapter"
    trials = [FakeTrial(cell=cell, name="a"), *(final(cell, seed, 80.0 + seed) for seed in (1, 2, 3))]
    write_sweep(uri, manifest(["/models/our encoder"], ["mrpc"], ["adapter"]), trials, {cell: "a"})
    text = build(uri, "sweep-1", tmp_path / "out").read_text(encoding="utf-8")
    assert "| Adapter | **82.00 ± 1.00** |" in text
    (curve,) = analyze(read(uri, "sweep-1")).expected_best
    assert (curve.model, curve.task) == ("/models/our encoder", "mrpc")


def test_an_unknown_sweep_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'sweep-1'"):
        build(known_store(), "sweep-9", tmp_path / "out")


def test_reduced_and_unfinished_sweeps_say_so_at_the_top(tmp_path):
    text = summary_of(tmp_path, [FakeTrial(cell=CELL, name="a")], stamp=["--epochs 2 instead of 20"])
    head = text.split("## ")[0]
    assert "> **Reduced budget, not a result of the full protocol:** --epochs 2 instead of 20" in head
    assert "> **So far:** 0 of 2 cells complete; 1 searching, 1 not started." in head


def test_a_complete_sweep_at_full_budget_carries_neither_notice(tmp_path):
    finals = [final(f"minilm/mrpc/{m}", seed, 80.0 + seed) for m in ("adapter", "madapter") for seed in range(3)]
    text = summary_of(tmp_path, finals)
    assert "So far" not in text
    assert "Reduced budget" not in text


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], "No trial has run yet."),
        ([FakeTrial(cell=CELL, name="a")], "| Adapter | – § | – |"),
        (
            [FakeTrial(cell=CELL, name=f"f{i}", state="FAILED", scores=(), counts=None) for i in range(4)],
            "hence no winner",
        ),
        ([final(CELL, 1, 80.0)], "| Adapter | **80.00 (std n/a)** § n = 1 | **80.00** |"),
        ([final(CELL, 1, float("nan"))], "0 of 3 finals (1 failed)"),
        ([final(CELL, s, 80.0, counts=None) for s in range(3)], "| Adapter | **80.00 ± 0.00** | **80.00** |"),
        ([final(CELL, s, 80.0, params={"lr": s}) for s in range(3)], "¶ Adapter on MRPC: the finals differ"),
    ],
    ids=["nothing", "no finals", "all failed", "one final", "not a number", "no counts", "mixed"],
)
def test_odd_sweeps_give_a_report_that_names_the_oddity(tmp_path, trials, expected):
    assert expected in summary_of(tmp_path, trials)


def test_with_one_seed_nothing_is_called_a_tie(tmp_path):
    trials = [final(CELL, 1, 80.0), final("minilm/mrpc/madapter", 1, 79.9)]
    text = summary_of(tmp_path, trials, budget={"trials": 4, "final_seeds": 1})
    assert "With a single seed no difference between methods can be judged." in text
    assert "≈" not in text


def test_an_encoder_in_a_folder_is_reported_like_any_other(tmp_path):
    model = "/models/our/encoder"
    trials = [FakeTrial(cell=f"{model}/mrpc/adapter", name="a", counts=None)]
    trials += [final(f"{model}/mrpc/adapter", seed, 80.0 + seed, counts=None) for seed in range(3)]
    models = {model: {"title": "Ours", "weights": "abc", "total": 1000, "source": model}}
    uri, record = new_store(tmp_path), manifest(["minilm"], ["mrpc"], ["adapter", "madapter"])
    write_sweep(uri, {**record, "models": models}, trials, {f"{model}/mrpc/adapter": "a"})
    text = build(uri, "sweep-1", tmp_path / "out").read_text(encoding="utf-8")
    assert "| Adapter | **81.00 ± 1.00**" in text


def test_a_winner_whose_run_is_gone_is_named(tmp_path):
    text = summary_of(tmp_path, [FakeTrial(cell=CELL, name="a")], winners={CELL: "elsewhere"})
    assert "winner's run is not in the store" in text


def test_results_of_the_csv_are_those_of_the_summary(tmp_path):
    build(known_store(), "sweep-1", tmp_path)
    table = pd.read_csv(tmp_path / "tables" / "results.csv").set_index(["model", "task", "method"])
    row = table.loc[("minilm", "mrpc", "adapter")]
    assert (row["mean"], row["std"]) == pytest.approx((86.5, 0.5))
    assert (row["n"], row["planned"]) == (3, 3)
    assert '"minilm","mrpc","adapter",' in (tmp_path / "tables" / "results.csv").read_text(encoding="utf-8")
    assert ",900000,950000,1000000,22713216," in (tmp_path / "tables" / "results.csv").read_text(encoding="utf-8")
    assert "**86.50 ± 0.50**" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def bulk_report(folder, number):
    """Write a store with so many search trials in each of 16 cells, and its report; (address, CPU seconds of the report)."""
    folder.mkdir()
    uri, tasks = new_store(folder), ("mrpc", "stsb", "cola", "rte")
    methods = ("full", "adapter", "sparse_adapter", "madapter")
    cells = [f"minilm/{task}/{method}" for task in tasks for method in methods]
    trials = [FakeTrial(cell=cell, name=f"{cell}-{i}") for cell in cells for i in range(number)]
    trials += [answered(cell, seed, 1043) for cell in cells for seed in range(3)]
    record = manifest(["minilm"], list(tasks), methods, budget={"trials": number, "final_seeds": 3})
    write_bulk(uri, record, trials, {cell: f"{cell}-0" for cell in cells})
    start = time.process_time()
    build(uri, "sweep-1", folder / "out")
    return uri, time.process_time() - start


def test_two_thousand_trials_take_little_more_to_report_than_sixty(tmp_path):
    """Most of a report is its figures and intervals. CPU seconds of this process, compared on one machine, in one run.

    Measured: 1.6 times. One query per trial and metric alone would take as long as the whole report.
    """
    bulk_report(tmp_path / "first", 4)  # what is loaded once does not count
    _, few = bulk_report(tmp_path / "few", 4)
    uri, many = bulk_report(tmp_path / "many", 122)
    assert many < 2.5 * few
    assert build_module.SUMMARY in files(tmp_path / "many" / "out")
    assert len(read(uri, "sweep-1").predictions) == 48
