"""Lanes as Ray actors: shared by the trials of a device, replaced when they die, and no trial trained twice or charged for it."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cli_process import arguments, finish, start, wait_for, write_project
from conftest import make_data, make_trial, write_tiny

from orchestrator.ledger import read
from search_spaces.language import Recipe

pytestmark = pytest.mark.slow

RECIPE = Recipe(epochs=3, patience=9)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Makes the jobs of real trials on a tiny encoder."""
    from trainables.models import resolve
    from trainables.tasks.tokens import _write

    folder = tmp_path_factory.mktemp("jobs")
    model = resolve(str(write_tiny(folder / "model", "bert")))
    data = make_data()
    splits = {part: getattr(data, part) for part in ("train", "validation", "test")}
    _write(folder / "data", data, splits)

    def make(seed, where):
        trial = replace(make_trial("adapter", r=4, seed=seed, recipe=RECIPE), weights=model.fingerprint)
        return {
            "id": trial.id,
            "trial": trial.to_json(),
            "source": str(model.path),
            "data": str(folder / "data"),
            "checkpoints": str(folder / where),
        }

    return make


@pytest.fixture(scope="module")
def holders():
    """Actors that each hold half a logical GPU of four, as Tune's trials do, and a registry for their lanes."""
    from orchestrator.cluster import cluster

    with cluster(4, 2, None) as (share, _):
        import ray

        from trainables.host import Remote, open_registry

        registry = open_registry("test")

        class Holder:
            def enter(self, job):
                self.remote = Remote(job, "test")
                return self.remote._gpu, self.remote._key, self.remote.where

            def next(self):
                return json.loads(self.remote.next())

            def leave(self):
                self.remote.leave()

        make = ray.remote(Holder).options(num_cpus=0, num_gpus=share.gpu).remote
        yield ray, [make() for _ in range(8)], registry


def rest(ray, holder):
    reports = [ray.get(holder.next.remote())]
    while reports[-1]["outcome"] is None:
        reports.append(ray.get(holder.next.remote()))
    return [r["progress"]["loss"] for r in reports]


def test_each_trial_is_on_its_own_device_and_residents_of_a_device_share_one_process(jobs, holders):
    ray, actors, _ = holders
    found = ray.get([a.enter.remote(jobs(i, "pinned")) for i, a in enumerate(actors)])
    gpus = [gpu for gpu, _, _ in found]
    assert sorted(gpus) == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert [where[1] for _, _, where in found] == gpus, "a lane sees another GPU than its trials"
    processes = {gpu: {where[0] for g, _, where in found if g == gpu} for gpu in gpus}
    assert all(len(pids) == 1 for pids in processes.values())
    assert len(set.union(*processes.values())) == 4
    curves = [rest(ray, a) for a in actors]
    assert len({tuple(c) for c in curves}) == 8
    ray.get([a.leave.remote() for a in actors])


def test_a_lane_that_dies_is_replaced_and_at_the_second_death_its_trials_get_their_own(jobs, holders):
    ray, actors, _ = holders
    pair = actors[:2]
    ray.get([a.enter.remote(jobs(i, "steady")) for i, a in enumerate(pair)])
    steady = [rest(ray, a) for a in pair]
    ray.get([a.leave.remote() for a in pair])
    where = [w for _, _, w in ray.get([a.enter.remote(jobs(i, "dying")) for i, a in enumerate(pair)])]
    assert where[0] == where[1]
    losses = [[], []]
    for _ in range(2):
        for i, a in enumerate(pair):
            losses[i].append(ray.get(a.next.remote())["progress"]["loss"])
        os.kill(where[0][0], signal.SIGKILL)
        time.sleep(0.5)
        asked = [a.next.remote() for a in pair]
        for i, report in enumerate(ray.get(asked)):
            losses[i].append(report["progress"]["loss"])
        where = [w for _, _, w in ray.get([a.enter.remote(jobs(i, "dying")) for i, a in enumerate(pair)])]
    assert where[0] != where[1], "two deaths, and they still sit together"
    for i in range(2):
        assert set(losses[i]) <= set(steady[i])
        assert rest(ray, pair[i]) == steady[i]


SPACE = """
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, log_uniform, method

space = Space(
    models=({model!r},),
    tasks=(FileTask(name="markers", train="train.csv", test="test.csv", text="text", label="label"),),
    methods=(method("adapter", r=choice(2, 4, 8)), method("madapter", r=choice(2, 4))),
    search={{"lr": log_uniform(1e-4, 1e-2), "batch_size": choice(8, 16)}},
    recipe=Recipe(epochs=2, patience=9),
    budget=Budget(trials=46, final_seeds=4, in_flight=8),
)
"""


def test_a_hundred_short_trials_on_one_lane_killed_twice_are_each_done_once(tmp_path):
    write_project(tmp_path, train=160)
    space = tmp_path / "many.py"
    space.write_text(SPACE.format(model=str(tmp_path / "model")), encoding="utf-8")
    out = tmp_path / "out"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        process = start(*arguments(space, out, "--trials-per-gpu", "8"), cwd=tmp_path)
    finally:
        os.sched_setaffinity(0, cores)
    killed = []
    watcher = threading.Thread(target=kill_lanes, args=(process, out, (10, 40), killed))
    watcher.start()
    code, errors = finish(process)
    watcher.join()
    assert code == 0, errors
    assert len(killed) == 2
    records = read(next(Path(out).glob("*/ledger.jsonl")).parent)
    ended = [r for r in records if r["event"] == "ended"]
    assert len(ended) == len({r["id"] for r in ended}) == 100
    assert {r["outcome"]["state"] for r in ended} <= {"DONE", "STOPPED"}


def kill_lanes(process, out, moments, killed):
    import psutil

    for moment in moments:
        wait_for(out, "ended", moment, process)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "LaneHost" in " ".join(child.cmdline()):
                child.kill()
                killed.append(child.pid)
