"""A ledger with an event that is unknown or malformed is damaged state, exit code 5, for every part that reads ledgers.

Each test calls a command line in this process, on the sweep that the first release left on disk. The report is not among the
readers: it knows the tracking store alone, and what is tested is that none is written from a store that lacks records.
"""

import json
import logging
import zlib
from contextlib import closing

import pytest

from orchestrator import driver, exit_codes, reproduce
from orchestrator import run as command_line
from orchestrator.ledger import Ledger
from orchestrator.tracking.tracker import Tracker
from search_spaces.events import SweepOpened
from tests.fixtures.cli_process import arguments
from tests.fixtures.first_release import unpack
from tests.fixtures.ledger_lines import read
from tests.fixtures.tracking_sweep import MANIFEST, SWEEP, asked, make_trial, numbered, started

FIRST = "markers-3788c577"
UNKNOWN = {"event": "paused", "id": "76e7bde3673f72cb"}
MALFORMED = {"event": "started", "id": "76e7bde3673f72cb", "on": "cuda:0"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder of a sweep that can be continued, and the current one; nothing trains, and logging is restored."""
    unpack(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "_run", lambda *_: pytest.fail("a damaged sweep was run"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=[UNKNOWN, MALFORMED], ids=["unknown", "malformed"])
def damaged(request, project):
    """The sweep's folder, with a wrong event at the end of its ledger."""
    return add_record(project / "runs" / FIRST, request.param)


def add_record(folder, event):
    """Write an event with a good checksum and number after the last record; return the folder."""
    path = folder / "ledger.jsonl"
    record = {**event, "seq": len(read(folder)) + 1, "time": 1.8e9}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    path.write_bytes(path.read_bytes() + b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode()))
    return folder


def files(folder):
    """What is on disk, but for lock files: they hold no result."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path): path.read_bytes() for path in paths}


def continue_sweep(project, *more):
    return command_line.main(arguments(project / "markers.py", project / "runs", *more))


def expect_damage(code, errors, folder):
    """One line, which names the file and the record."""
    assert code == exit_codes.DAMAGED_STATE == 5, errors
    assert "Traceback" not in errors
    (line,) = (line for line in errors.splitlines() if "reading models and data" not in line)
    path = folder / "ledger.jsonl"
    assert line.startswith(f"error: {path}, record {len(read(folder))}: it holds an "), line
    assert "head -n" in line


@pytest.mark.parametrize("more", [(), ("--plan",), ("--budget", "90m")], ids=["run", "plan", "budget"])
def test_a_sweep_is_neither_continued_nor_planned_on_a_wrong_event(project, damaged, capsys, more):
    (project / "runs" / "report").mkdir()
    (project / "runs" / "report" / "summary.md").write_text("the report of the last run")
    before = files(project)
    code = continue_sweep(project, *more)
    expect_damage(code, capsys.readouterr().err, damaged)
    assert files(project) == before


def test_a_wrong_event_ends_a_reproduction(project, damaged, capsys):
    before = files(project)
    code = reproduce.main([str(damaged), "./model/markers/full"])
    expect_damage(code, capsys.readouterr().err, damaged)
    assert files(project) == before


@pytest.mark.parametrize("more", [(), ("--plan",)], ids=["run", "plan"])
def test_a_wrong_event_in_the_ledger_of_another_sweep_ends_a_new_one_before_it_begins(project, damaged, capsys, more):
    before = files(project)
    code = continue_sweep(project, "--seeds", "1", *more)
    expect_damage(code, capsys.readouterr().err, damaged)
    assert files(project) == before
    assert [path.name for path in (project / "runs").glob("markers-*")] == [FIRST]


def test_a_sweep_whose_manifest_cannot_be_read_is_not_continued(project, capsys):
    folder = project / "runs" / FIRST
    (folder / "ledger.jsonl").write_bytes(b"")
    add_record(folder, {"event": "sweep", "format": driver.FORMAT, "manifest": {"models": {}}})
    before = files(project)
    assert continue_sweep(project) == exit_codes.DAMAGED_STATE
    errors = capsys.readouterr().err
    assert f"error: {folder / 'ledger.jsonl'}, record 1: it opens the sweep with a manifest" in errors
    assert "Traceback" not in errors
    assert files(project) == before


def test_a_sweep_of_a_newer_format_is_not_continued(project, capsys):
    folder = project / "runs" / FIRST
    with closing(Ledger.open(folder)) as ledger:
        first = {"event": "sweep", "format": driver.FORMAT + 1, "manifest": ledger.history.manifest}
    (folder / "ledger.jsonl").write_bytes(b"")
    add_record(folder, first)
    before = files(project)
    assert continue_sweep(project) == exit_codes.DAMAGED_STATE
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"error: {folder}: another version of this program wrote its ledger; continue with that version"
    )
    assert files(project) == before


def test_what_the_tracker_cannot_enter_ends_the_driver_without_a_report(project, monkeypatch, capsys):
    """The record passes the ledger, which does not look into manifests; nothing is trained, to be quick."""
    folder = project / "runs" / FIRST
    with closing(Ledger.open(folder)) as ledger:
        manifest = {**ledger.history.manifest, "stamp": 3}
        (record,) = ledger.append(SweepOpened(format=driver.FORMAT, manifest=manifest))
    before = (folder / "ledger.jsonl").read_bytes()
    monkeypatch.setattr(driver, "_run", lambda *_: exit_codes.COMPLETE)
    assert continue_sweep(project) == exit_codes.DAMAGED_STATE
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith(
        f"error: {folder / 'ledger.jsonl'}, record {record.seq}: it cannot be entered"
    )
    assert "Traceback" not in errors
    assert not (project / "runs" / "report").exists()
    ours = [each["event"] for each in read(folder)[record.seq :]]
    assert (folder / "ledger.jsonl").read_bytes().startswith(before)
    assert ours == ["sweep"], "a driver writes that it begins, and nothing after the failure"


LAST = {
    "an opening that lacks its sweep": {"event": "sweep", "manifest": {}},
    "a manifest of another kind": {"event": "sweep", "manifest": {**MANIFEST, "command": 3}},
    "a trial that no record asks for": {"event": "started", "id": "0123456789abcdef"},
}


@pytest.mark.parametrize("last", LAST)
def test_the_tracker_gives_up_at_such_a_record_and_does_not_try_again(last, project, caplog, monkeypatch):
    trial, attempts, uri = make_trial(), [], f"sqlite:///{project / 'runs' / 'mlflow.db'}"
    connect = Tracker._connect
    monkeypatch.setattr(Tracker, "_connect", lambda self: attempts.append(0) or connect(self))
    records = numbered([SWEEP, asked(trial), started(trial), LAST[last]])
    tracker = Tracker(uri, project / "artifacts", project, records)
    tracker.start()
    assert not tracker.drain(20)
    tracker.close()
    assert str(tracker.failure).startswith(f"{project / 'ledger.jsonl'}, record 4: it cannot be entered")
    assert len(attempts) == 1
    assert "unreachable" not in caplog.text


def test_the_tracker_gives_up_on_an_opening_that_names_no_sweep(tmp_path):
    tracker = Tracker("sqlite:///nowhere.db", None, tmp_path, numbered([{"event": "sweep", "manifest": {}}]))
    tracker.start()
    assert not tracker.drain(20)
    tracker.close()
    assert "record 1: it opens the sweep with a manifest that lacks space, sweep" in str(tracker.failure)
