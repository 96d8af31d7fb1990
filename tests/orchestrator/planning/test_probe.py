"""A probe: what it times, what of it is kept, and what a plan then says."""

from dataclasses import asdict, replace

import pytest

from orchestrator.planning import forecast, probe
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.throughput import PROBED, read_probed
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method
from tests.fixtures.encoders import write_tiny
from tests.fixtures.run_options import make_options
from trainables.worker.device_worker import Job, open_device_worker
from trainables.worker.timing import time_training


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Three methods on a tiny encoder, with two tasks of equal and one of three times the length."""
    monkeypatch.setattr(forecast, "count_cores", lambda: 2)
    tasks = []
    for name, words in (("short", 4), ("other", 5), ("long", 14)):
        rows = "".join(f"{'w7 ' * words}w{i % 2},{i % 2}\n" for i in range(400))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)
        tasks.append(FileTask(name=name, train=f"{name}.csv", text="text", label="label"))
    space = Space(
        name="small",
        models=(str(write_tiny(tmp_path / "model", "bert")),),
        tasks=tasks,
        methods=(method("full"), method("adapter", r=choice(4, 8)), method("bitfit")),
        search={"lr": choice(1e-3, 1e-4), "batch_size": choice(8, 16)},
        recipe=Recipe(epochs=4, patience=2, max_length=16),
        budget=Budget(trials=4, final_seeds=2, grace=1),
        folder=tmp_path,
    )
    return make_plan(space, make_options(tmp_path / "runs"))


def answering(monkeypatch, answer):
    """Replace the processes that train by a function of a job; returns the list of jobs that it gets."""
    asked = []

    def run(jobs, options, processes):
        asked.extend(jobs)
        return [answer(job) for job in jobs]

    monkeypatch.setattr(probe, "_run", run)
    return asked


def task_of(job) -> str:
    return job["trials"][0]["trial"]["cell"]["task"]


def method_of(job) -> str:
    return job["trials"][0]["trial"]["cell"]["method"]


def test_each_method_is_timed_once_for_each_length_and_then_all_cells_have_hours(plan, tmp_path, monkeypatch):
    options = make_options(tmp_path / "runs")
    assert "unknown for 9 of 9 cells: --probe times it in about" in plan_text(plan, options)
    seconds_of = {"short": 0.5, "long": 1.2}
    asked = answering(
        monkeypatch, lambda job: {"trials": 1.0, "step_seconds": seconds_of[task_of(job)], "end_seconds": 0.25}
    )
    assert probe.probe(plan, options) == []
    assert sorted(map(method_of, asked)) == ["adapter"] * 2 + ["bitfit"] * 2 + ["full"] * 2
    # Without one shared and one private backbone, nothing could be said; these come first, whatever the time.
    assert [(method_of(job), job["needed"]) for job in asked[:2]] == [("full", True), ("adapter", True)]
    found = forecast.make_forecast(plan, options)
    assert len(found.epoch_seconds) == 9
    # 324 examples are 20.25 batches of 16; 36 more, at a third of the time, are evaluated.
    steps = 324 / 16 * (1 + 36 / 324 / 3)
    for cell, (seconds, exact) in found.epoch_seconds.items():
        assert not exact
        if cell.task in seconds_of:
            assert seconds == pytest.approx(seconds_of[cell.task] * steps + 0.25, rel=0.05)
        else:
            assert 0.5 * steps < seconds < 0.7 * steps, "estimated by its tokens, slightly more than the short ones"
    text = plan_text(plan, options)
    assert " of training on 2 cores, by sweeps and probes in " in text
    # Nine cells have two trials at once in the search, and two finals.
    assert "more than 18 cores could not be used" in text


def test_what_could_not_be_timed_is_said_and_what_was_skipped_is_estimated(plan, tmp_path, monkeypatch):
    options = make_options(tmp_path / "runs")
    timing = {"trials": 1.0, "step_seconds": 0.5, "end_seconds": 0.0}
    answers = {"full": "OutOfMemoryError: too large", "bitfit": {}, "adapter": timing}
    answering(monkeypatch, lambda job: answers[method_of(job)])
    failures = probe.probe(plan, options)
    assert len(failures) == 2
    assert all("full on model could not be timed: OutOfMemoryError" in each for each in failures)
    known = {cell.method for cell in forecast.make_forecast(plan, options).epoch_seconds}
    assert known == {"adapter", "bitfit"}
    # A later probe completes the earlier one.
    answering(monkeypatch, lambda job: timing)
    probe.probe(plan, options)
    assert len(forecast.make_forecast(plan, options).epoch_seconds) == 9


def test_fewer_trials_on_a_device_than_planned_take_longer(plan, tmp_path, monkeypatch):
    options = make_options(tmp_path / "runs", trials_per_device=4)
    found = []
    for number in (4.0, 2.0):
        answering(monkeypatch, lambda job: {"trials": number, "step_seconds": 0.5, "end_seconds": 0.0})  # noqa: B023
        probe.probe(plan, options)
        found.append(max(read_probed(options.out).seconds.values()))
    assert found[1] == pytest.approx(2 * found[0])


def test_the_steps_that_are_timed_are_real_ones(plan, tmp_path, monkeypatch):
    """With the work of a real device worker, in this process, for two trials at once."""
    options = make_options(tmp_path / "runs", trials_per_device=2)
    worker = open_device_worker(gpu=False)
    steps = []
    train = worker.step
    monkeypatch.setattr(worker, "step", lambda: steps.append(len(worker.residents)) or train())

    def answer(job):
        jobs = [Job.from_json({**each, "checkpoints": str(tmp_path / "checkpoints")}) for each in job["trials"]]
        return asdict(time_training(worker, jobs))

    small = replace(plan, space=replace(plan.space, tasks=plan.space.tasks[:1], budget=Budget(trials=2, final_seeds=1)))
    asked = answering(monkeypatch, answer)
    assert probe.probe(small, options) == []
    assert set(steps) == {1, 2}
    assert not worker.residents
    # The sample is small: three steps an epoch.
    assert all(each["trial"]["recipe"]["epochs"] >= 10 for job in asked for each in job["trials"])
    assert all(0 < seconds < 60 for seconds in read_probed(options.out).seconds.values())


def test_a_damaged_file_of_measurements_is_named(plan, tmp_path):
    options = make_options(tmp_path / "runs")
    options.out.mkdir()
    (options.out / PROBED).write_text('{"epochs": [[{"model": "m"}, 1]], "tokens": []}')
    with pytest.raises(Exception, match=r"probed\.json: cannot be read .* delete it, and probe again"):
        plan_text(plan, options)


def test_a_cluster_is_not_probed(plan, tmp_path):
    with pytest.raises(ValueError, match="--probe times this machine, not the cluster"):
        probe.probe(plan, make_options(tmp_path / "runs", address="auto"))
