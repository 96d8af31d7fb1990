"""Which result is whose: sweeps that share a store stay apart, and what a machine could not do is no result of a trial."""

import json
from pathlib import Path

import pytest

from orchestrator.driver import recorded_id
from orchestrator.ledger import Damaged
from orchestrator.search.result_cache import CachedResult
from search_spaces.events import LedgerRecord, SweepOpened
from search_spaces.history import SweepHistory
from search_spaces.records import Outcome, predictions_checksum
from tests.fixtures.cli_process import arguments, finish, start, table, write_project
from tests.fixtures.ledger_lines import read

SMALL = ("--methods", "adapter", "--trials", "2", "--seeds", "2", "--epochs", "2")


def opened(*manifests):
    records = (LedgerRecord(seq=i, time=float(i), event=SweepOpened(manifest=m)) for i, m in enumerate(manifests, 1))
    return SweepHistory(records)


def test_a_sweep_is_continued_under_the_id_that_it_began_with():
    assert recorded_id(opened(), Path("f")) == ""
    assert recorded_id(opened({"sweep": "markers-3788c577"}), Path("f")) == "markers-3788c577"
    assert recorded_id(opened({"sweep": "markers-1-aa"}, {"sweep": "markers-1-bb"}), Path("f")) == "markers-1-aa"
    with pytest.raises(Damaged, match="lacks sweep"):
        recorded_id(opened({}), Path("f"))


@pytest.mark.parametrize(
    ("text", "predictions"),
    [
        ('{"predictions": [1.0, 0.0], "labels": [1.0, 1.0]}', (1.0, 0.0)),
        (
            f'{{"predictions": [1.0, 0.0], "labels": [1.0, 1.0], "checksum": {predictions_checksum([1.0, 0.0], [1.0, 1.0])}}}',
            (1.0, 0.0),
        ),
        ('{"predictions": [1.0, 1.0], "labels": [1.0, 1.0], "checksum": 7}', None),
        ('{"predictions": [1.0], "labels": [1.0, 1.0]}', None),
        ("{", None),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_a_result_of_another_sweep_is_taken_only_with_whole_predictions(text, predictions, tmp_path):
    if text is not None:
        (tmp_path / "p.json").write_text(text)
    outcome = Outcome(state="DONE", reason="epochs", epochs=1, predictions="p.json")
    found = CachedResult(folder=tmp_path, curve=(), outcome=outcome).test()
    assert (found and found.predictions) == predictions


@pytest.mark.slow
def test_two_sweeps_of_one_space_on_other_data_stay_apart_in_one_store(tmp_path):
    space, uri = write_project(tmp_path), f"sqlite:///{tmp_path}/shared.db"
    runs = {}
    for name in ("a", "b"):
        code, errors = finish(start(*arguments(space, tmp_path / name, *SMALL, "--tracking-uri", uri), cwd=tmp_path))
        assert code == 0, errors
        (accuracy,) = (row for row in table(tmp_path / name, "results", ()) if row["metric"] == "accuracy")
        assert (accuracy["n"], accuracy["planned"]) == ("2", "2")
        trials = table(tmp_path / name, "trials", ())
        assert len(trials) == 4
        runs[name] = {row["run_id"] for row in trials}
        (tmp_path / "train.csv").write_text("text,label\n" + "w0 w30,no\nw1 w31,yes\n" * 100, encoding="utf-8")
    assert not runs["a"] & runs["b"]
    folders = [next((tmp_path / name).glob("markers-*")) for name in ("a", "b")]
    assert folders[0].name == folders[1].name
    ids = [json.loads((folder / "sweep.json").read_text())["sweep"] for folder in folders]
    assert ids[0] != ids[1]
    code, errors = finish(start(*arguments(space, tmp_path / "b", *SMALL, "--tracking-uri", uri), cwd=tmp_path))
    assert code == 0, errors
    assert json.loads((folders[1] / "sweep.json").read_text())["sweep"] == ids[1], "a continued sweep keeps its id"


@pytest.mark.slow
def test_where_no_checkpoint_can_be_written_the_sweep_stops_and_its_trials_run_once_it_can(tmp_path):
    space, out = write_project(tmp_path), tmp_path / "out"
    words = arguments(space, out, *SMALL)
    process = start(*words, cwd=tmp_path)
    while not (found := list(out.glob("markers-*"))):
        assert process.poll() is None, finish(process)[1]
    (folder,) = found
    in_the_way = folder / "checkpoints"
    in_the_way.write_text("a file where a folder should be")
    code, errors = finish(process)
    assert code == 4, errors
    assert "stopped: node " in errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    assert not [record for record in read(folder) if record["event"] == "ended"]
    in_the_way.unlink()
    code, errors = finish(start(*words, "--trials-per-gpu", "2", cwd=tmp_path))
    assert code == 0, errors
    ended = [record["outcome"]["state"] for record in read(folder) if record["event"] == "ended"]
    assert sorted(set(ended)) in (["DONE"], ["DONE", "STOPPED"])
    (accuracy,) = (row for row in table(out, "results", ()) if row["metric"] == "accuracy")
    assert accuracy["n"] == "2"
