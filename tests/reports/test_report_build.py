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
from reports.build import build, summary
from reports.data.manifest import parse
from reports.data.store import read
from reports.plots import FIGURES
from reports.sections import SECTIONS
from reports.sections.section import Section
from tests.fixtures.bulk_store import answered, write_bulk
from tests.fixtures.figure_store import in_memory
from tests.fixtures.report_store import FakeTrial, final, known_store, manifest, new_store, write_sweep

CELL = "minilm/mrpc/adapter"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary_of(trials, winners=None, **changes):
    return summary(in_memory(manifest(["minilm"], ["mrpc"], ["adapter", "madapter"], **changes), trials, winners or {}))


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    uri = new_store(tmp_path_factory.mktemp("small"))
    trials = [FakeTrial(cell=CELL, name="a"), *(final(CELL, seed, 80.0 + seed) for seed in (1, 2))]
    write_sweep(uri, manifest(["minilm"], ["mrpc"], ["adapter"]), trials, {CELL: "a"})
    return uri


def test_the_command_line_writes_summary_figures_and_tables(known_report):
    found = files(known_report)
    kinds = ("efficiency", "tries", "search", "curves")
    figures = {f"figures/{k}_{m}.{e}" for k in kinds for m in ("minilm", "bert-base-uncased") for e in ("png", "svg")}
    tidy = ("results", "differences", "cost", "winners", "search", "budget", "trace", "trials")
    shown = ("results", "tasks", "differences", "cost", "winners", "search", "budget", "configurations")
    papers = [f"paper_{name}" for name in (1, 2, 3, "figure_2")]
    tables = {f"tables/{name}.csv" for name in tidy}
    tables |= {f"tables/{name}.tex" for name in (*shown, "parameters_1", "parameters_2", *papers)}
    assert set(found) == {"summary.md", "summary.html", "leaderboard.json"} | figures | tables
    links = re.findall(r"\]\((figures/[^)]+)\)", found["summary.md"].decode())
    assert set(links) == figures


def test_the_leaderboard_has_the_numbers_of_the_tables_and_the_best_first(tmp_path):
    out, listed = tmp_path / "out", tmp_path / "listed"
    out.mkdir()
    (out / "mine.txt").write_text("no file of the report")
    build(known_store(), "sweep-1", out, file_list=listed)
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


def test_a_report_is_written_again_beside_an_earlier_one(tmp_path, small_store):
    """From a folder of the user's, where reports/ is the earlier report and no package of ours. Files of others stay."""
    for folder in ("figures", "tables"):
        (tmp_path / "reports" / folder).mkdir(parents=True)
    (tmp_path / "reports" / "tables" / "mine.txt").write_text("stays")
    command = [sys.executable, "-m", "reports", "--tracking-uri", small_store]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "reports/summary.md")), done.stderr
    assert (tmp_path / "reports" / "tables" / "mine.txt").read_text() == "stays"


def test_the_same_store_gives_the_same_bytes(tmp_path, known_report):
    build(known_store(), "sweep-1", tmp_path / "again")
    assert files(known_report) == files(tmp_path / "again")


def test_a_failing_build_leaves_the_old_report_as_it_was(tmp_path, monkeypatch, small_store):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.md").write_text("the last report")
    before = files(out)

    def broken(sweep):
        raise RuntimeError("no disk")

    monkeypatch.setitem(SECTIONS, "trials", Section(rows=broken))
    with pytest.raises(RuntimeError):
        build(small_store, "sweep-1", out)
    assert files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("rate", [5e-4, 1e-3])
def test_a_space_of_a_single_learning_rate_has_its_figures(rate, tmp_path):
    given = {"params": {"lr": rate, "batch_size": 16}}
    trials = [FakeTrial(cell=CELL, name="a", **given), *(final(CELL, seed, 80.0 + seed, **given) for seed in (1, 2))]
    record = manifest(["minilm"], ["mrpc"], ["adapter"])
    record["methods"]["adapter"] |= {"fixed": {"lr": rate}, "searched": {"batch_size": {"choice": [8, 16]}}}
    (figure,) = FIGURES["search"](in_memory(record, trials, {CELL: "a"}))
    figure.draw().savefig(tmp_path / "x.svg")
    assert "<!-- 1e-3 -->" in (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_where_nothing_was_searched_the_report_does_not_talk_of_a_search_that_might_go_on():
    given = {"params": {"lr": 1e-3, "batch_size": 16}}
    trials = [FakeTrial(cell=CELL, name="a", **given), *(final(CELL, seed, 80.0 + seed, **given) for seed in (1, 2))]
    record = manifest(["minilm"], ["mrpc"], ["adapter"])
    record["methods"]["adapter"] |= {"fixed": given["params"], "searched": {}}
    sweep = in_memory(record, trials, {CELL: "a"})
    text = summary(sweep)
    assert "Would more search change the order?" not in text
    assert "nothing was searched" in text
    assert [figure.name for kind in FIGURES.values() for figure in kind(sweep)] == [
        "efficiency_minilm",
        "curves_minilm",
    ]


def test_methods_stand_in_the_order_of_the_space_whatever_the_store_did_to_it():
    record = manifest(["minilm"], ["mrpc", "stsb"], ["adapter", "full", "madapter"])
    order = ["madapter", "full", "adapter"]
    resolved = {"tasks": [{"name": "stsb"}, "mrpc"], "methods": [{"label": label} for label in order]}
    found = parse({**record, "resolved": resolved})
    assert (list(found.methods), list(found.tasks)) == (order, ["stsb", "mrpc"])
    assert list(parse(record).methods) == ["adapter", "full", "madapter"]


def test_code_of_earlier_calls_is_told():
    text = summary_of([final(CELL, 1, 80.0)], earlier_code=[["fe12", True], ["9a0b", False]])
    assert (
        "Code: commit 0123abc; earlier calls of this sweep: commit fe12, with uncommitted changes; commit 9a0b\n"
        in text
    )


def test_a_long_list_of_reductions_is_shown_to_its_end():
    stamp = [f"--methods {'m' * 250}", "--seeds 2 instead of 3", "--epochs 3 instead of 20"]
    text = summary_of([final(CELL, 1, 80.0)], stamp=stamp)
    assert f"{stamp[0]}; {stamp[1]}; {stamp[2]}\n" in text


def test_a_model_may_be_a_path():
    cell = "/models/our encoder/mrpc/adapter"
    trials = [FakeTrial(cell=cell, name="a"), *(final(cell, seed, 80.0 + seed) for seed in (1, 2, 3))]
    sweep = in_memory(manifest(["/models/our encoder"], ["mrpc"], ["adapter"]), trials, {cell: "a"})
    assert "| Adapter | 102.0 % | 82.00 ± 1.00 |" in summary(sweep)
    (curve,) = sweep.expected_best
    assert (curve.model, curve.task) == ("/models/our encoder", "mrpc")


def test_an_unknown_sweep_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'sweep-1'"):
        build(known_store(), "sweep-9", tmp_path / "out")


def test_reduced_and_unfinished_sweeps_say_so_at_the_top():
    text = summary_of([FakeTrial(cell=CELL, name="a")], stamp=["--epochs 2 instead of 20"])
    head = text.split("## ")[0]
    assert "> **Changed from the space as written:** --epochs 2 instead of 20" in head
    assert (
        "> **So far:** 0 of 2 cells complete; search unfinished: 1, not started: 1. Missing: 7 trials of the search"
        in head
    )
    assert "and 6 finals." in head
    assert "running" not in text


def test_a_complete_sweep_at_full_budget_carries_neither_notice():
    finals = [final(f"minilm/mrpc/{m}", seed, 80.0 + seed) for m in ("adapter", "madapter") for seed in range(3)]
    text = summary_of(finals)
    assert "So far" not in text
    assert "Changed from the space" not in text


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], "no final has a result. Best validation scores so far"),
        ([FakeTrial(cell=CELL, name="a")], "| Adapter | – | – § |"),
        (
            [FakeTrial(cell=CELL, name=f"f{i}", state="FAILED", scores=(), counts=None) for i in range(4)],
            "hence no winner",
        ),
        ([final(CELL, 1, 80.0)], "| Adapter | 4.49 % | 80.00 (std n/a) § n = 1 |"),
        ([final(CELL, 1, float("nan"))], "0 of 3 finals, 1 failed"),
        ([final(CELL, s, 80.0, counts=None) for s in range(3)], "| Adapter | – | 80.00 ± 0.00 |"),
        ([final(CELL, s, 80.0, params={"lr": s}) for s in range(3)], "- ¶ the finals differ"),
    ],
    ids=["nothing", "no finals", "all failed", "one final", "not a number", "no counts", "mixed"],
)
def test_odd_sweeps_give_a_report_that_names_the_oddity(trials, expected):
    assert expected in summary_of(trials)


def test_with_one_seed_nothing_is_called_a_tie():
    trials = [final(CELL, 1, 80.0), final("minilm/mrpc/madapter", 1, 79.9)]
    text = summary_of(trials, budget={"trials": 4, "final_seeds": 1})
    assert "With a single seed no difference between methods can be judged." in text
    assert "≈" not in text


def test_an_encoder_in_a_folder_is_reported_like_any_other():
    model = "/models/our/encoder"
    trials = [FakeTrial(cell=f"{model}/mrpc/adapter", name="a", counts=None)]
    trials += [final(f"{model}/mrpc/adapter", seed, 80.0 + seed, counts=None) for seed in range(3)]
    models = {model: {"title": "Ours", "weights": "abc", "total": 1000, "source": model}}
    record = manifest(["minilm"], ["mrpc"], ["adapter", "madapter"])
    sweep = in_memory({**record, "models": models}, trials, {f"{model}/mrpc/adapter": "a"})
    assert "| Adapter | – | 81.00 ± 1.00 |" in summary(sweep)


def test_a_winner_whose_run_is_gone_is_named():
    text = summary_of([FakeTrial(cell=CELL, name="a")], winners={CELL: "elsewhere"})
    assert "winner's run is not in the store" in text


def test_results_of_the_csv_are_those_of_the_summary(known_report):
    table = pd.read_csv(known_report / "tables" / "results.csv").set_index(["model", "task", "method"])
    row = table.loc[("minilm", "mrpc", "adapter")]
    assert (row["mean"], row["std"]) == pytest.approx((86.5, 0.5))
    assert (row["n"], row["planned"]) == (3, 3)
    assert '"minilm","mrpc","adapter",' in (known_report / "tables" / "results.csv").read_text(encoding="utf-8")
    assert ",900000,950000,1000000,22713216," in (known_report / "tables" / "results.csv").read_text(encoding="utf-8")
    assert "**86.50 ± 0.50**" in (known_report / "summary.md").read_text(encoding="utf-8")


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


@pytest.mark.slow
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
