"""What the first release left on disk is read, reported on and continued by this code."""

import json
from collections import Counter

import pytest

from reports.build import build
from reports.data.store import find
from tests.fixtures.cli_process import arguments, finish, start, table
from tests.fixtures.first_release import unpack
from tests.fixtures.ledger_lines import read

SWEEP = "markers-3788c577"


@pytest.fixture
def project(tmp_path):
    return unpack(tmp_path)


def events(folder, kind):
    return [record for record in read(folder / "runs" / SWEEP) if record["event"] == kind]


def test_a_report_is_written_from_the_store_of_the_first_release(project, tmp_path):
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert find(uri, space="markers") == SWEEP
    build(uri, SWEEP, tmp_path / "runs" / "report")
    rows = {row["trial"]: row for row in table(tmp_path / "runs", "trials", ())}
    ended = {record["id"]: record["outcome"] for record in events(tmp_path, "ended")}
    assert ended
    for trial_id, outcome in ended.items():
        assert float(rows[trial_id]["best_score"]) == pytest.approx(outcome["best_score"])
    assert "So far" in (tmp_path / "runs" / "report" / "summary.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_sweep_of_the_first_release_is_continued_to_its_end(project, tmp_path):
    """Nothing that it did is done again, and nothing that it wrote is changed."""
    before = (tmp_path / "runs" / SWEEP / "ledger.jsonl").read_bytes()
    ended = {record["id"] for record in events(tmp_path, "ended")}
    code, errors = finish(start(*arguments(project, tmp_path / "runs"), cwd=tmp_path))
    assert code == 0, errors
    assert [path.name for path in (tmp_path / "runs").glob("markers-*")] == [SWEEP], "the sweep kept its name"
    assert (tmp_path / "runs" / SWEEP / "ledger.jsonl").read_bytes().startswith(before)
    asked = Counter(record["id"] for record in events(tmp_path, "asked"))
    assert set(asked.values()) == {1}
    assert all(count == 1 for count in Counter(record["id"] for record in events(tmp_path, "ended")).values())
    assert ended <= set(asked)
    results = [row for row in table(tmp_path / "runs", "results", ()) if row["metric"] == "accuracy"]
    assert [row["n"] for row in results] == ["2", "2"]
    epochs = [(r["id"], r["progress"]["epoch"]) for r in events(tmp_path, "progress")]
    assert len(epochs) == len(set(epochs)), json.dumps(epochs)
