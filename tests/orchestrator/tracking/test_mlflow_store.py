"""What a real sqlite store holds after a sweep, after crashes at any call, and after it was tampered with."""

import contextlib
import json
import logging
import shutil
import sqlite3
from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.tracking.mlflow_store import Store, connect
from orchestrator.tracking.run_edits import Edit, Key, Point, RunUpdates
from orchestrator.tracking.tracker import BATCH, Link
from search_spaces import keys
from tests.fixtures.tracking_sweep import (
    FAILING,
    FINAL,
    FINISHED,
    PREDICTIONS,
    SEARCHED,
    SWEEP,
    WHOLE,
    asked,
    client,
    content,
    ended,
    numbered,
    progress,
    runs_of,
    started,
    write_predictions,
)

RECORDS = numbered(WHOLE)
ADAPTER, FULL = "tiny/rte/adapter", "tiny/rte/full"


@pytest.fixture
def make_uri(schema, tmp_path):
    write_predictions(tmp_path)
    made = []

    def make():
        path = tmp_path / f"{len(made)}.db"
        shutil.copy(schema, path)
        made.append(path)
        return f"sqlite:///{path}"

    return make


@pytest.fixture
def uri(make_uri):
    return make_uri()


@pytest.fixture
def expected(make_uri, tmp_path):
    """What an undisturbed delivery leaves."""
    uri = make_uri()
    deliver(uri, tmp_path, RECORDS, batch=7)
    return content(uri)


def link_to(uri, folder, records):
    return Link(uri, folder / "artifacts", folder, records)


def deliver(uri, folder, records, batch=BATCH):
    link = link_to(uri, folder, records)
    while link.position < len(records):
        link.deliver(records[link.position : link.position + batch])


def test_a_sweep_becomes_its_runs_cells_and_trials(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS)
    found = content(uri)
    assert {key: (run["name"], run["status"], run["tags"][keys.PARENT]) for key, run in found.items()} == {
        ("sweep", "", ""): ("made-up-1234abcd", "FINISHED", ""),
        ("cell", ADAPTER, ""): (ADAPTER, "FINISHED", "made-up-1234abcd"),
        ("cell", FULL, ""): (FULL, "FINISHED", "made-up-1234abcd"),
        ("trial", ADAPTER, SEARCHED.id): ("adapter lr=0.0005 b=16 seed 3", "FINISHED", ADAPTER),
        ("trial", FULL, FAILING.id): ("full lr=1e-05 b=16 seed 3", "FAILED", FULL),
        ("trial", ADAPTER, FINAL.id): ("adapter lr=0.0005 b=16 seed 7", "FINISHED", ADAPTER),
    }
    sweep = found["sweep", "", ""]
    assert sweep["tags"][keys.STAMP] == "--epochs 2, --seeds 1"
    assert sweep["tags"][keys.COMMAND] == "python -m orchestrator.run --space made-up"
    assert sweep["tags"][keys.POSITION] == str(len(RECORDS))
    assert sweep["files"] == ["made_up.py", "sweep.json"]
    assert sweep["params"] == {
        "models": "tiny",
        "tasks": "rte",
        "methods": "adapter, full",
        "trials": "1",
        "final_seeds": "1",
    }
    assert sweep["tags"]["mlflow.user"]
    assert sweep["tags"]["mlflow.source.name"] == "made_up.py"
    assert sweep["tags"]["mlflow.source.git.commit"] == "c0ffee"
    assert found["cell", ADAPTER, ""]["tags"][keys.WINNER] == SEARCHED.id
    assert keys.WINNER not in found["cell", FULL, ""]["tags"]


def test_a_trials_run_says_what_was_tried_and_what_came_out(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS)
    trial = content(uri)["trial", ADAPTER, SEARCHED.id]
    place = {"model": "tiny", "task": "rte", "method": "adapter", "phase": "search"}
    searched = {"lr": "0.0005", "batch_size": "16", "epochs": "2", "seed": "3", "r": "8", "gate": "true"}
    assert trial["params"] == {**place, **searched}
    assert trial["inputs"] == [("rte", "s", "train, validation")]
    assert trial["span"] == (1_700_000_003_250, 1_700_000_013_250)
    ours = {key: value for key, value in trial["tags"].items() if key.startswith("peft.")}
    assert ours == {
        "peft.kind": "trial",
        "peft.sweep": "made-up-1234abcd",
        "peft.cell": ADAPTER,
        "peft.model": "tiny",
        "peft.task": "rte",
        "peft.method": "adapter",
        "peft.trial": SEARCHED.id,
        "peft.phase": "search",
        "peft.state": "DONE",
        "peft.reason": "epochs",
        "peft.cached": "false",
        "peft.collapsed": "false",
        "peft.diverged": "false",
    }
    first, second, end = 1_700_000_006_250, 1_700_000_012_250, 1_700_000_013_250
    assert trial["points"] == [
        ("epochs", 0, 2.0, end),
        *[("lr", 1, 1e-4, first), ("lr", 2, 1e-4, second)],
        *[("memory_mib", 1, 64.0, first), ("memory_mib", 2, 64.0, second)],
        *[("seconds", 1, 2.5, first), ("seconds", 2, 2.5, second)],
        *[("train/loss", 1, 0.5, first), ("train/loss", 2, 0.5, second)],
        *[("validation/accuracy", 1, 60.0, first), ("validation/accuracy", 2, 65.5, second)],
        *[("validation/best_accuracy", 0, 65.5, end), ("validation/best_epoch", 0, 2.0, end)],
        *[("weight_counts/module", 0, 12.0, end), ("weight_counts/total", 0, 1000.0, end)],
        *[("weight_counts/trained", 0, 20.0, end), ("weight_counts/weights", 0, 10.0, end)],
    ]


def test_a_failed_trial_has_no_best_score(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS)
    trial = content(uri)["trial", FULL, FAILING.id]
    assert {name for name, *_ in trial["points"]} == {"validation/accuracy", "lr", "seconds", "memory_mib", "epochs"}
    assert (trial["tags"][keys.STATE], trial["tags"][keys.REASON]) == ("FAILED", "diverged")
    assert trial["tags"][keys.DIVERGED] == "true"


def test_a_final_has_its_test_scores_and_its_predictions(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS)
    run = next(run for run in runs_of(uri) if run.data.tags.get(keys.TRIAL) == FINAL.id)
    assert (run.data.metrics["test/accuracy"], run.data.metrics["test/f1/macro"]) == (64.25, 60.0)
    assert (run.data.metrics["saved_bytes"], run.data.metrics["weight_counts/stored"]) == (4321, 1050)
    assert (run.data.tags[keys.PHASE], run.data.tags[keys.CACHED]) == ("final", "true")
    path = client(uri).download_artifacts(run.info.run_id, "predictions.json", str(tmp_path))
    with open(path) as file:
        assert json.load(file) == PREDICTIONS
    assert run.info.artifact_uri.startswith((tmp_path / "artifacts").as_uri())


def test_a_trial_that_never_ran_has_no_run(uri, tmp_path):
    deliver(uri, tmp_path, numbered((SWEEP, asked(SEARCHED), asked(FAILING), started(FAILING))))
    assert {key[0] for key in content(uri)} == {"sweep", "cell", "trial"}
    assert ("trial", FULL, FAILING.id) in content(uri)
    assert ("trial", ADAPTER, SEARCHED.id) not in content(uri)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_size_of_the_batches_does_not_show(make_uri, tmp_path, batch):
    one, other = make_uri(), make_uri()
    deliver(one, tmp_path, RECORDS)
    deliver(other, tmp_path, RECORDS, batch)
    for key, run in content(one).items():
        assert run == {**content(other)[key], "span": run["span"]}


def test_everything_delivered_twice_leaves_what_delivering_once_did(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS)
    once, sweep = content(uri), next(run for run in runs_of(uri) if run.data.tags[keys.KIND] == "sweep")
    client(uri).delete_tag(sweep.info.run_id, keys.POSITION)
    deliver(uri, tmp_path, RECORDS, batch=3)
    assert content(uri) == once


class Breaking:
    """A client that fails at its n-th writing call, before or after the store carried it out."""

    def __init__(self, inner, call, after):
        self._inner, self._left, self._after = inner, call, after

    def __getattr__(self, name):
        inner = getattr(self._inner, name)
        if name.startswith(("search", "get")):
            return inner

        def call(*arguments, **options):
            self._left -= 1
            if self._left == 0 and not self._after:
                raise ConnectionError("request lost")
            answer = inner(*arguments, **options)
            if self._left == 0:
                raise ConnectionError("answer lost")
            return answer

        return call


@pytest.mark.parametrize("call", [1, 3, 10, 21])
@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_a_crash_at_some_calls_changes_nothing_in_the_end(uri, expected, tmp_path, call, after):
    assert crash(uri, tmp_path, call, after)
    assert content(uri) == expected


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_a_crash_at_any_call_changes_nothing_in_the_end(uri, expected, tmp_path, after):
    calls = 1
    while crash(uri, tmp_path, calls, after):
        assert content(uri) == expected, f"after call {calls}"
        clear(uri)
        calls += 1
    assert calls > 25


def crash(uri, folder, call, after):
    """Deliver with a connection that breaks at that call, then the rest with another; whether it came to that call."""
    link = link_to(uri, folder, RECORDS)
    link._store._client = Breaking(link._store._client, call, after)
    try:
        while link.position < len(RECORDS):
            link.deliver(RECORDS[link.position : link.position + 7])
    except ConnectionError:
        deliver(uri, folder, RECORDS, batch=7)
        return True
    return False


def clear(uri):
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name("made-up")
    if experiment:
        for run in mlflow.search_runs([experiment.experiment_id]):
            mlflow.delete_run(run.info.run_id)


def test_a_second_run_of_a_trial_is_put_aside(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS[:8])
    kept = {run.info.run_id: run for run in runs_of(uri)}
    mlflow = client(uri)
    for run in kept.values():
        tags = {
            k: v for k, v in run.data.tags.items() if k in (keys.KIND, keys.SWEEP, keys.CELL, keys.TRIAL, keys.PARENT)
        }
        mlflow.create_run(run.info.experiment_id, run.info.start_time, tags, run.info.run_name)
    deliver(uri, tmp_path, RECORDS)
    assert {run.info.run_id for run in runs_of(uri)} >= set(kept)
    assert len(content(uri)) == 6
    everything = mlflow.search_runs([run.info.experiment_id])
    aside = [run for run in everything if run.data.tags.get("peft.duplicate") == "true"]
    assert len(aside) == len(kept) == len(everything) - 6
    assert {(run.info.status, run.data.tags[keys.KIND]) for run in aside} == {("KILLED", "duplicate")}


def test_a_request_carried_out_late_is_put_aside_when_the_sweep_finishes(uri, tmp_path):
    link = link_to(uri, tmp_path, RECORDS)
    link.deliver(RECORDS[:8])
    late = next(run for run in runs_of(uri) if run.data.tags.get(keys.TRIAL) == SEARCHED.id)
    client(uri).create_run(late.info.experiment_id, late.info.start_time, late.data.tags, late.info.run_name)
    link.deliver(RECORDS[8:])
    found = content(uri)
    assert len(found) == 6
    assert len(found["trial", ADAPTER, SEARCHED.id]["points"]) == 17


def test_orphans_of_a_killed_driver_go_on_in_their_own_runs(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS[:6])
    before = {run.info.run_id: run.info.status for run in runs_of(uri)}
    assert set(before.values()) == {"RUNNING"}
    events = [*WHOLE[:6], SWEEP, started(SEARCHED), progress(SEARCHED, 2, 65.0), ended(SEARCHED), FINISHED]
    deliver(uri, tmp_path, numbered(events))
    after = {run.info.run_id: (run.data.tags[keys.KIND], run.info.status) for run in runs_of(uri)}
    assert after.keys() == before.keys()
    states = {key[1:]: run["status"] for key, run in content(uri).items() if key[0] == "trial"}
    assert states == {(ADAPTER, SEARCHED.id): "FINISHED", (FULL, FAILING.id): "KILLED"}


def test_an_interrupted_sweep_is_closed_and_opened_again(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS[:9])
    assert {key[0]: run["status"] for key, run in content(uri).items() if key[2] != FAILING.id} == dict.fromkeys(
        ("sweep", "cell", "trial"), "KILLED"
    )
    assert content(uri)["trial", FULL, FAILING.id]["status"] == "FAILED"
    deliver(uri, tmp_path, RECORDS[:11])
    assert {run["status"] for key, run in content(uri).items() if key[2] != FAILING.id} == {"RUNNING"}


@pytest.mark.parametrize(
    "events",
    [
        (asked(SEARCHED), started(SEARCHED), ended(SEARCHED, "FAILED", "lost its worker"), started(SEARCHED)),
        (asked(SEARCHED), progress(SEARCHED, 1, 60.0)),
    ],
    ids=["tried again", "taken from another sweep"],
)
def test_an_interrupt_closes_whatever_was_under_way(uri, tmp_path, events):
    deliver(uri, tmp_path, numbered([SWEEP, *events, {"event": "interrupted", "reason": "SIGINT"}]))
    trial = content(uri)["trial", ADAPTER, SEARCHED.id]
    assert (trial["status"], trial["tags"][keys.STATE]) == ("KILLED", "RUNNING")


def test_a_new_connection_writes_only_what_is_new(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS[:13])
    link = link_to(uri, tmp_path, RECORDS)
    calls = []
    real = link._store._client.log_batch
    link._store._client.log_batch = lambda run_id, *rest, **options: (
        calls.append(run_id) or real(run_id, *rest, **options)
    )
    link.deliver(RECORDS[13:14])
    runs = {run.data.tags[keys.KIND]: run.info.run_id for run in runs_of(uri) if keys.WINNER in run.data.tags}
    sweep = next(run.info.run_id for run in runs_of(uri) if run.data.tags[keys.KIND] == "sweep")
    assert calls == [runs["cell"], sweep], "the winner, then the number of records"


def test_a_run_deleted_by_hand_is_written_again(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS[:-1])
    victim = next(run for run in runs_of(uri) if run.data.tags.get(keys.TRIAL) == SEARCHED.id)
    client(uri).delete_run(victim.info.run_id)
    deliver(uri, tmp_path, RECORDS)
    assert len(content(uri)["trial", ADAPTER, SEARCHED.id]["points"]) == 17


def test_a_deleted_experiment_is_restored(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS[:8])
    mlflow = client(uri)
    mlflow.delete_experiment(mlflow.get_experiment_by_name("made-up").experiment_id)
    deliver(uri, tmp_path, RECORDS)
    assert len(content(uri)) == 6


def test_a_store_that_is_ahead_of_the_ledger_is_written_from_the_start(uri, tmp_path):
    deliver(uri, tmp_path, RECORDS)
    shorter = numbered([*WHOLE[:6], FINISHED])
    deliver(uri, tmp_path, shorter)
    assert content(uri)["sweep", "", ""]["tags"][keys.POSITION] == "7"


def test_two_sweeps_of_one_space_do_not_mix(uri, tmp_path):
    other = {**SWEEP, "manifest": {**SWEEP["manifest"], "sweep": "made-up-ffffffff"}}
    deliver(uri, tmp_path, RECORDS)
    deliver(uri, tmp_path, numbered([other, *WHOLE[1:5], FINISHED]))
    sweeps = [run.data.tags[keys.SWEEP] for run in runs_of(uri)]
    assert (sweeps.count("made-up-1234abcd"), sweeps.count("made-up-ffffffff")) == (6, 5)


def test_a_store_that_holds_another_sweep_of_the_same_id_is_refused_and_left_as_it_is(uri, tmp_path):
    """As two sweeps of one space from a version of this program whose ids had no random digits."""
    deliver(uri, tmp_path, RECORDS)
    before = content(uri)
    later = [replace(record, time=record.time + 3600) for record in RECORDS]
    with pytest.raises(EnvironmentUnfit, match=r"holds another sweep with the id made-up-1234abcd.*--tracking-uri"):
        deliver(uri, tmp_path, later)
    assert content(uri) == before
    deliver(uri, tmp_path, RECORDS)
    assert content(uri) == before


def test_missing_predictions_cost_the_file_and_nothing_else(uri, tmp_path, caplog):
    shutil.rmtree(tmp_path / "predictions")
    deliver(uri, tmp_path, RECORDS)
    assert content(uri)["trial", ADAPTER, FINAL.id]["files"] == []
    assert content(uri)["sweep", "", ""]["status"] == "FINISHED"
    assert "is missing" in caplog.text


def test_large_edits_and_odd_names_fit_mlflows_limits(uri, tmp_path):
    store = Store(uri, tmp_path / "artifacts", tmp_path, "made-up", "made-up-1234abcd", began=1)
    sweep = RunUpdates(
        key=Key("sweep"), name="s", tags={keys.KIND: "sweep", keys.SWEEP: "made-up-1234abcd", "long": "t" * 9000}
    )
    edit = Edit(run=sweep, start=1)
    edit.points = [Point(key=f"test.é:a|b{i % 7}", value=i, time=i, step=i) for i in range(2500)]
    edit.params = {f"p{i}": "v" * 7000 for i in range(130)}
    edit.tags = {f"t{i}": "w" * 9000 for i in range(130)}
    store.write([edit], 1)
    (run,) = runs_of(uri)
    assert len(run.data.params) == 130
    assert {len(value) for value in run.data.params.values()} == {6000}
    assert sum(len(client(uri).get_metric_history(run.info.run_id, name)) for name in run.data.metrics) == 2500
    assert "test._" + "_a_b0" in run.data.metrics


def test_secrets_in_reasons_and_commands_do_not_reach_the_store(uri, tmp_path):
    secret = "http://user:hunter2@host/x failed with hf_abcdefghijk"
    manifest = {**SWEEP["manifest"], "command": f"run --tracking-uri {secret}"}
    events = [{**SWEEP, "manifest": manifest}, asked(SEARCHED), started(SEARCHED), ended(SEARCHED, "FAILED", secret)]
    deliver(uri, tmp_path, numbered(events))
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in data
    assert b"hf_abcdefghijk" not in data
    assert b"http://host/x failed" in data


def test_an_error_of_the_database_is_raised_and_not_logged_by_mlflow_as_well(schema, tmp_path, capfd, caplog):
    """MLflow logs it with a traceback, past this project's redaction of secrets; on a full disk once a second."""
    path = tmp_path / "mlflow.db"
    shutil.copy(schema, path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE runs")
    store = connect(f"sqlite:///{path}")
    with pytest.raises(MlflowException, match="OperationalError"):
        store.search_runs(["0"])
    assert capfd.readouterr().err == ""
    assert caplog.records == []


def test_what_mlflow_logs_itself_passes_this_process_s_handlers(schema, tmp_path, caplog):
    shutil.copy(schema, tmp_path / "mlflow.db")
    connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    logging.getLogger("mlflow.tracking").error("an upload failed")
    logging.getLogger("mlflow.tracking").warning("a hint")
    assert [record.getMessage() for record in caplog.records] == ["an upload failed"]
    assert not logging.getLogger("mlflow").handlers
