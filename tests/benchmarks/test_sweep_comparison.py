"""Both sides of the whole-sweep comparison train the same trials, parameters and rungs; and all of their processes count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.tune.schedulers import ASHAScheduler

from benchmarks import process_tree
from benchmarks.sweep_comparison import Measured, ratios
from benchmarks.sweep_setting import Setting
from benchmarks.tune_and_trainer import PADDINGS, network_of, read_splits
from orchestrator.search.cell import CellSearch
from search_spaces.loading import load
from search_spaces.records import Outcome
from trainables.tasks.task_loading import load as load_task
from trainables.training.parameter_counts import build, count

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setting(tiny_bert):
    return Setting(model=str(tiny_bert.path), task="agreement", r=4, train_examples=40, test_examples=40)


def test_our_command_gets_the_setting_as_a_space_file(setting, tmp_path):
    assert load(str(setting.write_space(tmp_path))).cells == setting.space().cells
    assert Setting.read_json(setting.write_json(tmp_path)) == (setting, setting.trials())


def test_the_peer_gets_the_trials_that_our_cell_asks_for_whatever_they_score(setting):
    space, asked = setting.space(), []
    cell = CellSearch(
        space.cells[0], space, lambda cell, parameters, seed, phase, search: asked.append((parameters, seed))
    )
    for number in range(space.budget.trials):
        entry = cell.next()
        cell.end(entry, Outcome(state="DONE", reason="epochs", epochs=1, best_epoch=1, best_score=float(number % 4)))
    assert [{**parameters, "seed": seed} for parameters, seed in asked] == setting.trials()
    assert len({(t["lr"], t["batch_size"]) for t in setting.trials()}) == 6


def test_rungs_are_those_of_rays_halving(setting):
    cell = CellSearch(setting.space().cells[0], setting.space(), lambda *_: None)
    theirs = ASHAScheduler(max_t=setting.epochs, grace_period=setting.grace, reduction_factor=setting.reduction)
    rungs = [milestone for milestone, _ in theirs._brackets[0]._rungs]
    assert cell.brackets.all[0].rungs == sorted(r for r in rungs if r < setting.epochs)


def test_the_peer_trains_as_many_parameters(setting, tiny_bert):
    ours = count(build("adapter", {"r": setting.r}, tiny_bert.shape), tiny_bert.shape, 2)
    network = network_of(setting, tiny_bert, 2)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == ours.trained


def test_the_peer_pads_to_128_at_once_or_not_at_all(setting, tiny_bert):
    loaded = load_task("agreement", data_dir=None, folder=Path(), train_examples=40, test_examples=40)
    lengths = {}
    for padding in PADDINGS:
        _, examples = read_splits(loaded, tiny_bert, setting, padding)
        lengths[padding] = {len(example["input_ids"]) for example in examples["train"]}
    assert lengths["128"] == {128}
    assert max(lengths["longest"]) < 128


# Starts a grandchild, which no process waits for, and ends a second after that has computed for half a second.
MIDDLE = """
import subprocess, sys, time
from pathlib import Path
done = Path(sys.argv[1])
burn = f"import time\\nwhile time.process_time() < 0.5: pass\\nopen({str(done)!r}, 'w').close()\\ntime.sleep(2)"
start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}]); input()"
child = subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE)
while not done.exists():
    time.sleep(0.05)
child.kill()
time.sleep(1.2)
print(7)
"""


def test_a_grandchild_that_nobody_waits_for_is_counted(tmp_path):
    usage = process_tree.run([sys.executable, "-c", MIDDLE, str(tmp_path / "done")], os.environ, tmp_path / "log")
    assert usage.output == "7\n"
    assert usage.cpu[Path(sys.executable).name] > 0.45
    half = (usage.start + usage.end) / 2
    halves = usage.cpu_between(usage.start, half) + usage.cpu_between(half, usage.end)
    assert 0.45 < halves <= sum(usage.cpu.values())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["ray::TrialTrainable.train()"], "ray::TrialTrainable"),
        (["/x/python", "-m", "reports", "--out", "y"], "reports"),
        (["/x/python", "-u", "/y/log_monitor.py", "--z"], "log_monitor.py"),
        (["/x/gcs_server", "--log_dir=1"], "gcs_server"),
    ],
)
def test_processes_are_named_by_what_they_run(words, name):
    assert process_tree.label(words) == name


def test_ratios_per_epoch_count_what_was_trained():
    def sweep(makespan, epochs):
        return Measured(
            makespan=makespan,
            start=1,
            search=makespan - 3,
            finals=1,
            end=1,
            cpu=2 * makespan,
            trials_cpu=2 * makespan - 8,
            search_epochs=epochs - 1,
            epochs=epochs,
            best_score=0,
            test_scores=[],
            cpu_by_process={},
        )

    found = ratios({"ours": [sweep(10, 5), sweep(20, 5)], "128": [sweep(40, 10), sweep(80, 10)]})
    (peer,) = found.values()
    assert (peer["makespan"].median, peer["cpu"].median) == (4, 4)
    assert peer["trials"].low == pytest.approx(78 / 18)
    assert peer["trials per epoch"].low == pytest.approx(78 / 10 / (18 / 5))
    assert peer["trials' cpu per epoch"].median == pytest.approx((72 / 12 + 152 / 32) / 4)


@pytest.mark.slow
def test_both_sides_run_from_a_cold_process(tmp_path):
    path = tmp_path / "result.json"
    few = ["--smoke", "--rounds", "1", "--arms", "ours,longest"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sweep_comparison", *few, "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = json.loads(path.read_text())["results"]["agreement"]["rounds"]
    for (found,) in rounds.values():
        parts = [found[name] for name in ("start", "search", "finals", "end")]
        assert sum(parts) == pytest.approx(found["makespan"])
        assert min(parts) > 0
        assert 3 <= found["search_epochs"] <= 4
        assert found["epochs"] == found["search_epochs"] + 2
        assert found["cpu"] > 1
