"""A time budget on the real command line: in time, with all finals and a whole report; and taken up again."""

import pytest

from orchestrator.ledger import read
from orchestrator.search.durations import spent
from tests.fixtures.cli_process import arguments, finish, start, table, write_project

pytestmark = pytest.mark.slow
BUDGET = 60.0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Without an end, this sweep would take many times the budget."""
    folder = tmp_path_factory.mktemp("project")
    space = write_project(folder, epochs=8, train=640)
    text = space.read_text(encoding="utf-8").replace("choice, method", "choice, log_uniform, method")
    text = text.replace("choice(3e-4, 1e-3)", "log_uniform(3e-4, 1e-3)").replace(
        "choice(1e-3, 3e-3)", "log_uniform(1e-3, 3e-3)"
    )
    space.write_text(text.replace("trials=4,", "trials=400,"), encoding="utf-8")
    return folder, space


def test_a_sweep_with_a_time_budget_ends_in_time_with_finals_and_a_report(project):
    folder, space = project
    out = folder / "runs"
    code, errors = finish(start(*arguments(space, out), "--budget", "60s", cwd=folder))
    assert code == 0, errors
    records = read(next(out.glob("*/ledger.jsonl")).parent)
    first = next(r for r in records if r["event"] == "progress")
    if first["time"] - records[0]["time"] > BUDGET / 2:
        pytest.skip("this machine is so busy that the first epoch took half of the budget")
    assert spent(records) <= 1.5 * BUDGET, errors
    assert [r["event"] for r in records].count("curtailed") == 1
    assert records[-1]["event"] == "finished"
    results = [row for row in table(out, "results", ()) if row["metric"] == "accuracy"]
    assert [row["n"] for row in results] == ["2", "2"]
    tries = table(out, "budget", ())
    assert all(0 < int(row["tried"]) < int(row["planned"]) for row in tries)
    summary = (out / "report" / "summary.md").read_text(encoding="utf-8")
    assert "--budget 60s ended the searches early" in summary
    assert "So far" not in summary

    code, errors = finish(start(*arguments(space, out), "--budget", "60s", cwd=folder))
    assert code == 0, errors
    assert [r for r in read(next(out.glob("*/ledger.jsonl")).parent) if r["event"] == "progress"] == [
        r for r in records if r["event"] == "progress"
    ], "the same command has nothing left to do"


def test_a_larger_budget_takes_the_searches_up_again_and_ends_with_another_report(project):
    folder, space = project
    out = folder / "runs"
    code, errors = finish(start(*arguments(space, out), "--budget", "100s", cwd=folder))
    assert code == 0, errors
    records = read(next(out.glob("*/ledger.jsonl")).parent)
    events = [r["event"] for r in records]
    assert [e for e in events if e in ("curtailed", "extended")] == ["curtailed", "extended", "curtailed"]
    cut, again = events.index("curtailed"), events.index("extended")
    stopped = {r["id"] for r in records[cut:again] if r["event"] == "ended" and r["outcome"]["reason"] == "budget"}
    gone_on = {r["id"] for r in records[again:] if r["event"] == "ended"}
    assert stopped
    assert stopped <= gone_on, "what the first budget stopped has another end"
    epochs = [(r["id"], r["progress"]["epoch"]) for r in records if r["event"] == "progress"]
    assert len(epochs) == len(set(epochs))
    summary = (out / "report" / "summary.md").read_text(encoding="utf-8")
    assert "--budget 100s ended the searches early; searched on after a time budget" in summary
    results = [row for row in table(out, "results", ()) if row["metric"] == "accuracy"]
    assert [row["n"] for row in results] == ["2", "2"]
