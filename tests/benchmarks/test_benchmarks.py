"""The benchmarks count and divide correctly, and the GPU script never shows a figure that it did not measure."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    cluster_simulation,
    control_plane,
    gpu_ab,
    gpu_first,
    gpu_models,
    gpu_worker,
    measure,
    padding,
)
from benchmarks.adapter_product import arms
from benchmarks.arms import CPU, Encoder, Fused, Lone, make_data, make_trials
from benchmarks.gpu_loop import measure_all
from benchmarks.gpu_setting import SMOKE, Bench
from benchmarks.operators import ENCODER, LIMIT, count, count_fused
from benchmarks.saved_bytes import saved_bytes
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS

ROOT = Path(__file__).parents[2]
NOT_NEEDED = ("ray", "optuna", "mlflow")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return ENCODER.save(tmp_path_factory.mktemp("deep"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Encoder(layers=2, width=16, heads=2).save(tmp_path_factory.mktemp("small"))


def test_a_step_dispatches_as_many_operators_for_sixteen_trials_as_for_one(deep):
    numbers = [count_fused(deep, K) for K in (1, 4, 16)]
    assert numbers == [numbers[0]] * 3
    assert 500 < numbers[0] <= LIMIT


def test_views_are_no_operators():
    x = torch.zeros(4, 6, requires_grad=True)
    assert count(lambda: x.view(6, 4).t()[1:].unsqueeze(0).detach()) == 0
    assert count(lambda: (x + 1).sum()) == 2
    assert count(lambda: (x.detach() @ x.detach().t()).add_(1)) == 2


def test_spread_is_median_and_extremes():
    spread = measure.Spread.of([4.0, 1.0, 2.0])
    assert (spread.median, spread.low, spread.high, spread.number) == (2.0, 1.0, 4.0, 3)
    assert str(spread) == "2 (1..4, n=3)"


def test_ratios_are_taken_round_by_round():
    # The machine was three times slower in the second round: a ratio of medians would not cancel that.
    spread = measure.ratio([2.0, 6.0, 2.2], [1.0, 3.0, 1.0])
    assert (spread.median, spread.low, spread.high) == pytest.approx((2.0, 2.0, 2.2))


def test_arms_alternate_and_seconds_are_per_unit_without_the_warm_up():
    now, calls = [0.0], []

    def step(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    arms = {
        "a": measure.Arm(step=step("a", 1.0), repeats=2),
        "b": measure.Arm(step=step("b", 8.0), units=4),
    }
    seconds = measure.interleaved(arms, rounds=2, warm_up=1, clock=lambda: now[0])
    assert seconds == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert "".join(calls) == "ab" + "aab" + "baa"


def test_results_are_written_with_their_conditions(tmp_path):
    path = tmp_path / "new" / "result.json"
    measure.write(path, "made up", {"threads": "1"}, {"case": {"ratio": measure.Spread.of([1.0, 3.0])}})
    record = json.loads(path.read_text())
    assert record["conditions"] == {"threads": "1"}
    assert record["results"]["case"]["ratio"] == {"median": 2.0, "low": 1.0, "high": 3.0, "number": 2}


def test_both_arms_of_the_adapter_product_compute_the_same():
    both = arms(3, 5, 8, 2)
    torch.testing.assert_close(both["loop"](), both["batched"]())


def test_padding_shares_by_hand(monkeypatch):
    monkeypatch.setattr(padding, "permutation", lambda number, *_: np.arange(number))
    found = padding.shares(np.array([1, 3, 2, 2]), batch_size=2)
    assert list(found.values()) == pytest.approx([8 / 8, 8 / 10, 8 / 10, 8 / 512])


def test_the_lone_arm_trains_on_the_batches_of_the_resident(small):
    data, trial = make_data([3, 5, 7, 4] * 10), make_trials(1, r=4)[0]
    lone, fused = Lone(small, trial, data), Fused(Backbone.load(small, CPU), [trial], data)
    state = fused.engine.add_trial(make_trials(2, r=4)[1], data)
    split, chosen = state.batch()
    own = Lone(small, state.trial, data, length=16).batch()
    assert own["input_ids"].shape == (8, 16)
    assert own["attention_mask"].sum() == (split.offsets[chosen + 1] - split.offsets[chosen]).sum()
    assert own["labels"].tolist() == split.labels[chosen].tolist()
    lone.step()
    fused.step()


def test_saved_bytes_count_a_storage_once_and_not_what_was_there_before():
    weight = torch.ones(100, requires_grad=True)
    x = torch.ones(100)
    assert saved_bytes(lambda: weight * x) == 0
    assert saved_bytes(lambda: (weight * x).sin().sin()) == 2 * 400
    # exp keeps its result and square its argument: the same storage.
    assert saved_bytes(lambda: (weight * x).exp().square()) == 400


def test_cost_per_trial_is_the_difference_of_two_ends_divided_by_the_trials_between():
    marks = [(float(i), {"controller": 0.002 * i, "all": 0.01 * i}) for i in range(1, 60)]
    found = control_plane._window(marks, 10, 40)
    assert found == pytest.approx({"wall": 1000.0, "controller": 2.0, "all": 10.0})


def test_a_sweep_without_ray_is_measured_from_its_tenth_trial_on():
    found = control_plane.decide(trials=24, cells=2, slots=4)
    assert list(found) == ["10"]
    assert 0 < found["10"]["optuna"] < found["10"]["all"]


def test_simulated_gpus_are_kept_busy_and_do_no_more_than_they_can(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_simulation, "CELLS", 4)
    few, many = (cluster_simulation.simulate(gpus, 24, tmp_path / str(gpus)) for gpus in (1, 20))
    assert few["trials"] == many["trials"] == 4 * (6 + 1)
    # All six trials of a cell and its final may be in flight on twenty GPUs, of which fewer than half are of use.
    assert 0.9 < few["share of the time in which a GPU has trials"] <= 1
    assert 0.1 < many["share of the time in which a GPU has trials"] < 0.9
    for found in (few, many):
        assert found["share of the steps that full GPUs would do"] < 1
    assert many["hours"] < few["hours"]


@pytest.mark.slow
def test_the_control_plane_is_measured_end_to_end(tmp_path):
    path = tmp_path / "control.json"
    command = [sys.executable, "-m", "benchmarks.control_plane", "--smoke", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())["results"]
    assert found["C9"]["results_per_second"]["workers"]["median"] > 0
    assert found["per trial"]["start_ms_median"]["median"] > 0


def test_the_engine_needs_no_ray_optuna_or_mlflow():
    grimp = pytest.importorskip("grimp", reason="the extra [dev] is not installed")
    graph = grimp.build_graph("trainables", "search_spaces", include_external_packages=True, cache_dir=None)
    needed = graph.find_upstream_modules("trainables.worker.device_worker")
    assert "torch" in needed
    assert needed.isdisjoint(NOT_NEEDED)


@pytest.mark.parametrize("script", [gpu_first, gpu_ab, gpu_models, gpu_worker])
def test_without_a_device_nothing_is_measured(monkeypatch, capsys, script):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main([]) == 4
    assert capsys.readouterr().out == "not measured: no CUDA device\n"


def smoke(name, folder, *more):
    """The record that a GPU script writes in smoke mode where what it must not need cannot be imported."""
    for module in (*NOT_NEEDED, "datasets"):
        (folder / f"{module}.py").write_text("raise ImportError('not on that machine')\n")
    result = folder / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--smoke", "--json", str(result), *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(result.read_text())
    assert all(record["results"].values())
    assert "smoke" in record["conditions"]["device"]
    return record["results"]


@pytest.mark.slow
def test_the_first_minutes_on_a_gpu_run_where_only_torch_and_transformers_are(tmp_path):
    found = smoke("gpu_first", tmp_path)
    assert list(found) == list(gpu_first.SECTIONS)
    trained = [row["trained"] for row in found["S1"] if "trained" in row]
    assert trained == [len(METHODS)] * 2


def test_a_section_of_the_comparison_of_captured_steps_runs_there_too(tmp_path):
    found = smoke("gpu_ab", tmp_path, "--only", "A2,A5")
    assert list(found) == ["A2", "A5"]
    assert all(row["equal to the first"] for row in found["A2"])


def test_whole_trials_run_on_the_device_worker_with_and_without_captured_steps(tmp_path):
    path = tmp_path / "result.json"
    assert gpu_worker.main(["--smoke", "--only", "W3", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())["results"]["W3"]
    assert (row["K"], row["epochs"]) == (2, 4)
    assert row["replayed"] == "2 steps, 1 graphs"
    assert float(row["max |d loss|"]) < 1e-5


def test_families_and_a_decoder_are_compared_with_replayed_steps_and_a_row_of_peft(tmp_path):
    found = smoke("gpu_models", tmp_path, "--only", "M1,M3")
    assert [row["family"] for row in found["M1"]] == ["bert", "llama"]
    for row in found["M1"]:
        assert row["replayed"] == 4
        assert float(row["eager and captured, max |d loss|"]) < 1e-5
    (row,) = found["M3"]
    assert row["K"] == 2
    assert row["bf16 captured: refused"] == "no"


def test_the_first_minutes_take_only_sections_that_exist_and_start_none_too_late(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu_first.main(["--smoke", "--only", "S2,S99"])
    path = tmp_path / "first.json"
    assert gpu_first.main(["--smoke", "--only", "S2", "--minutes", "0", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["results"] == {"S2": [{"": "not measured: no time left"}]}


def test_a_section_that_fails_keeps_its_rows_and_the_others_run(small, tmp_path):
    def breaks(bench):
        yield {"what": "first", "ms": 1.0}
        raise ValueError("out of order")

    sections = {"A": breaks, "B": gpu_first.s2_waits}
    bench = Bench(model=small, scale=SMOKE, device=CPU, precision="bf16", deadline=math.inf)
    path = tmp_path / "first.json"
    assert not measure_all(bench, "gpu_first", sections, {}, path)
    found = json.loads(path.read_text())["results"]
    assert found["A"] == [{"what": "first", "ms": 1.0}, {"": "failed: ValueError: out of order"}]
    assert found["B"]
