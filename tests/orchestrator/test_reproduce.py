"""A number of a table followed to its run and made again: the same finals, alone, in this process."""

import csv
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest

from orchestrator import exit_codes, reproduce
from orchestrator.ledger import Ledger, read, write_atomic
from orchestrator.planning.plan import make_plan
from orchestrator.planning.sweep_inputs import SweepInputs
from orchestrator.planning.sweep_manifest import folder_name, make_manifest
from orchestrator.run_options import RunOptions
from search_spaces.events import SweepOpened, TrialAsked, TrialEnded, WinnerChosen
from search_spaces.language import Cell
from search_spaces.loading import load
from search_spaces.records import TRAINING_SEMANTICS
from tests.fixtures.cli_process import ROOT, arguments, finish, start, table, write_project
from trainables.backbone.models import resolve
from trainables.tasks import task_loading, tokens
from trainables.worker.device_worker import DeviceWorker, Job, open_device_worker


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep one of whose cells is finished, and that cell; its finals trained together in one worker."""
    out = tmp_path_factory.mktemp("out")
    plan = make_plan(load(str(write_project(out, epochs=2))), RunOptions(methods=["adapter"]))
    (name,) = plan.space.models
    model = resolve(name)
    task = task_loading.load(
        plan.space.tasks[0], data_dir=None, folder=plan.space.folder, train_examples=0, test_examples=0
    )
    data = tokens.prepare(task, str(model.path), plan.space.recipe.max_length, out / "tokens")
    inputs = SweepInputs(
        space=plan.space, models={name: model}, tasks={"markers": task}, tokens={(name, "markers", 0): data}
    )
    cell = Cell(model=name, task="markers", method="adapter")
    searched, *finals = (
        inputs.trial(cell, {"lr": 3e-3, "batch_size": 8, "r": 4}, seed, "final" if seed else "search")
        for seed in (0, 1, 2)
    )
    folder = out / folder_name(plan.space)
    with closing(Ledger.open(folder)) as ledger:
        manifest = make_manifest(
            plan, {name: model}, {"markers": task}, "python -m orchestrator.run", "2 CPU cores", sweep="markers-1"
        )
        ledger.append(SweepOpened(format=1, manifest=manifest))
        ledger.append(*(TrialAsked(id=t.id, trial=t) for t in (searched, *finals)))
        ledger.append(WinnerChosen(cell=cell, id=searched.id))
        for trial, report in zip(finals, _train_together(finals, name, data, out), strict=True):
            outcome = replace(report.outcome, predictions=f"predictions/{trial.id}.json")
            answers = {"predictions": list(report.test.predictions), "labels": list(report.test.labels)}
            write_atomic(folder / outcome.predictions, str(answers).replace("'", '"'))
            ledger.append(TrialEnded(id=trial.id, outcome=outcome))
    return folder, str(cell)


def _train_together(trials, source, data, out):
    worker: DeviceWorker = open_device_worker(False)
    for trial in trials:
        worker.add_trial(Job(trial=trial, source=source, data=data, folder=out / "checkpoints" / trial.id))
        worker.request_epoch(trial.id)
        worker.request_epoch(trial.id)
    while worker.has_work:
        worker.step()
    assert not worker.failures
    return [[worker.residents[trial.id].next_report() for _ in range(2)][-1] for trial in trials]


def test_every_final_trained_alone_has_the_score_and_the_predictions_on_record(sweep, capsys):
    folder, cell = sweep
    assert reproduce.main([str(folder), cell]) == exit_codes.COMPLETE
    shown = capsys.readouterr().out
    on_record = {
        r.event.id: r.event.outcome.metrics["accuracy"] for r in read(folder) if isinstance(r.event, TrialEnded)
    }
    rows = re.findall(r"^ +(\d+) +([0-9a-f]{16}) +([\d.]+) +([\d.]+) +(\d+) of (\d+)$", shown, re.MULTILINE)
    assert {trial: float(score) for _, trial, score, *_ in rows} == {k: round(v, 4) for k, v in on_record.items()}
    assert [(seed, changed, number) for seed, *_, changed, number in rows] == [("1", "0", "60"), ("2", "0", "60")]
    assert all(before == after for _, _, before, after, *_ in rows)
    assert f"{cell}: lr = 0.003, batch_size = 8, epochs = 2, r = 4" in shown


def test_another_seed_is_trained_too_and_has_nothing_on_record(sweep, capsys):
    folder, cell = sweep
    assert reproduce.main([str(folder), cell, "--seed", "77"]) == exit_codes.COMPLETE
    assert re.search(r"^ +77 +[0-9a-f]{16} +not there +[\d.]+ +unknown$", capsys.readouterr().out, re.MULTILINE)


def test_one_seed_of_the_finals_is_that_final(sweep):
    record = reproduce.read_cell(*sweep)
    assert reproduce.chosen(record, 2) == record.finals[1:]


def test_finals_of_another_configuration_are_not_the_cells(sweep):
    folder, cell = sweep
    first, *_ = reproduce.read_cell(folder, cell).finals
    other = replace(first.trial, lr=1e-3)
    with closing(Ledger.open(folder)) as ledger:
        ledger.append(TrialAsked(id=other.id, trial=other))
    assert [final.trial.seed for final in reproduce.read_cell(folder, cell).finals] == [1, 2]


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        (("nowhere", None), ("nowhere: there is no sweep", "OUT/SWEEP")),
        ((None, "x/markers/adaptor"), ("cell 'x/markers/adaptor' is not in", "known:", "MODEL/TASK/METHOD")),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(sweep, capsys, change, phrases):
    words = [str(given or own) for given, own in zip(change, sweep, strict=True)]
    assert reproduce.main(words) == exit_codes.BAD_INPUT
    shown = capsys.readouterr().err
    assert all(phrase in shown for phrase in ("error: ", *phrases)), shown


def test_a_wrong_seed_is_refused(sweep, capsys):
    with pytest.raises(SystemExit) as end:
        reproduce.main([*map(str, sweep), "--seed", "-1"])
    assert end.value.code == exit_codes.BAD_INPUT
    with pytest.raises(SystemExit):
        reproduce.main([*map(str, sweep), "--seed", "three"])
    assert "'three': must be a whole number" in capsys.readouterr().err


def test_a_cell_without_a_winner_says_how_to_go_on(sweep, tmp_path, capsys):
    folder, cell = sweep
    with closing(Ledger.open(tmp_path / "young")) as ledger:
        ledger.append(*(r.event for r in read(folder) if isinstance(r.event, SweepOpened)))
    assert reproduce.main([str(tmp_path / "young"), cell]) == exit_codes.BAD_INPUT
    assert "has no winner yet; continue the sweep with: python -m orchestrator.run" in capsys.readouterr().err


def test_tokens_that_are_gone_and_other_training_are_named(sweep, tmp_path):
    record = reproduce.read_cell(*sweep)
    (final, *_) = record.finals
    with pytest.raises(ValueError, match=r"has no file of task 'markers'.*sweep's command makes it again"):
        reproduce.tokens_of(replace(record, folder=tmp_path / "x"), final.trial)
    tasks = {name: {**facts, "score": "pearson"} for name, facts in record.manifest["tasks"].items()}
    with pytest.raises(ValueError, match="targets that were not standardised, as is done since; check out the commit"):
        reproduce.tokens_of(replace(record, manifest={**record.manifest, "tasks": tasks}), final.trial)
    with pytest.raises(ValueError, match="check out the commit"):
        reproduce.check_semantics(replace(final.trial, semantics=TRAINING_SEMANTICS["fp32"] + 1))


def test_tokens_files_that_cannot_be_read_are_passed_over(sweep, tmp_path):
    record = reproduce.read_cell(*sweep)
    (final, *_) = record.finals
    folder = record.folder.parent / "tokens"
    unreadable = folder / "markers-0000.safetensors"
    unreadable.write_bytes(b"of an earlier format")
    try:
        assert reproduce.tokens_of(record, final.trial) in set(folder.iterdir()) - {unreadable}
    finally:
        unreadable.unlink()


@pytest.mark.slow
def test_the_command_that_the_report_prints_gives_the_number_of_its_table(tmp_path):
    """A number followed by hand: from the table to the trace, from there to the run."""
    space = write_project(tmp_path)
    code, errors = finish(
        start(*arguments(space, tmp_path / "runs", "--methods", "adapter", "--trials", "2"), cwd=tmp_path)
    )
    assert code == 0, errors
    (row,) = [r for r in table(tmp_path / "runs", "trace", ()) if r["method"] == "adapter"]
    results = table(tmp_path / "runs", "results", ())
    (result,) = [r for r in results if (r["method"], r["metric"]) == ("adapter", "accuracy")]
    words = row["finals_command"].split()
    assert words[:3] == ["python", "-m", "orchestrator.reproduce"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert f"{float(result['mean']):.2f} ± {float(result['std']):.2f} retrained" in done.stdout
    assert done.stdout.count(" 0 of 60") == 2
    exported_winners_predict_what_was_recorded(tmp_path, environment)


def exported_winners_predict_what_was_recorded(place, environment):
    """In fresh processes: `export` of both winners of the sweep, then `predict` on its test file."""
    (ledger,) = place.glob("runs/*/ledger.jsonl")
    for method in ("adapter", "full"):
        cell = f"{place / 'model'}/markers/{method}"
        kept = [
            f
            for f in reproduce.read_cell(ledger.parent, cell).finals
            if (ledger.parent / "checkpoints" / f.trial.id).is_dir()
        ]
        assert len(kept) == 1
        for words in (
            ("export", ledger.parent.name, cell, "--to", method),
            ("predict", method, "test.csv", "--to", f"{method}.csv"),
        ):
            command = [sys.executable, "-m", "orchestrator", *words]
            subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)
        recorded = json.loads((ledger.parent / kept[0].outcome.predictions).read_text(encoding="utf-8"))["predictions"]
        with (place / f"{method}.csv").open(encoding="utf-8", newline="") as file:
            assert [row["label"] for row in csv.DictReader(file)] == [("no", "yes")[int(index)] for index in recorded]
