"""Device workers as Ray actors: one for all trials of a device, replaced when it dies, and no epoch is trained to two results."""

import os
import signal
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.sweep_split import SPACE
from search_spaces.language import Recipe
from tests.fixtures.cli_process import arguments, finish, start, wait_for, write_project
from tests.fixtures.encoders import write_tiny
from tests.fixtures.ledger_lines import read
from tests.fixtures.trials import make_data, make_trial

pytestmark = pytest.mark.slow

RECIPE = Recipe(epochs=3, patience=9)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Makes the jobs of real trials on a tiny encoder."""
    from trainables.backbone.models import resolve
    from trainables.tasks.tokens import _write

    folder = tmp_path_factory.mktemp("jobs")
    model = resolve(str(write_tiny(folder / "model", "bert")))
    data = make_data()
    splits = {part: getattr(data, part) for part in ("train", "validation", "test")}
    _write(folder / "data", data, splits, {})

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
    """Actors that each hold half a logical GPU of four, as Tune's trials do, and a registry for their device workers."""
    from orchestrator.execution.cluster import cluster

    with cluster(4, 2, None) as (share, _):
        import ray

        from trainables.worker.ray_actors import RemoteTrial, open_registry

        registry = open_registry("test")

        class Holder:
            def train(self, job):
                self.remote = RemoteTrial(job, ray.get_actor("test", namespace="device_workers"))
                self.remote.train()

            def gpu(self):
                return ray.get_runtime_context().get_accelerator_ids()["GPU"][0]

        make = ray.remote(Holder).options(num_cpus=0, num_gpus=share.gpu, max_concurrency=2).remote
        yield ray, [make() for _ in range(8)], registry


class Driver:
    """Takes reports from the mailbox and lets every trial go on, to its end."""

    def __init__(self, ray, registry):
        self._ray, self._registry, self._verdicts = ray, registry, {}
        self.losses = defaultdict(dict)

    def answer(self):
        _, reports = self._ray.get(self._registry.take.remote({}, self._verdicts, 0.1))
        for report in reports:
            known = self.losses[report["id"]].setdefault(report["progress"]["epoch"], report["progress"]["loss"])
            assert known == report["progress"]["loss"], "an epoch was trained to another end"
        self._verdicts = {report["id"]: report["outcome"] is None for report in reports}

    def until(self, found):
        while not found():
            self.answer()

    def finish(self, training):
        self.until(lambda: len(self._ray.wait(training, num_returns=len(training), timeout=0)[0]) == len(training))
        self._ray.get(training)


def workers_of(ray, registry, jobs, gpus):
    """Process and GPU of each trial's worker."""
    node = ray.get_runtime_context().get_node_id()
    found = ray.get([registry.find.remote(job["id"], node, gpu) for job, gpu in zip(jobs, gpus, strict=True)])
    return ray.get([actor.location.remote() for _, _, actor in found])


def test_each_trial_is_on_its_own_device_and_residents_of_a_device_share_one_process(jobs, holders):
    ray, actors, registry = holders
    made = [jobs(i, "pinned") for i in range(8)]
    gpus = ray.get([a.gpu.remote() for a in actors])
    assert sorted(gpus) == ["0", "0", "1", "1", "2", "2", "3", "3"]
    training = [a.train.remote(job) for a, job in zip(actors, made, strict=True)]
    driver = Driver(ray, registry)
    driver.until(lambda: len(driver.losses) == 8)
    where = workers_of(ray, registry, made, gpus)
    assert [gpu for _, gpu in where] == gpus, "a worker sees another GPU than its trials"
    processes = {gpu: {pid for pid, g in where if g == gpu} for gpu in gpus}
    assert all(len(pids) == 1 for pids in processes.values())
    assert len(set.union(*processes.values())) == 4
    driver.finish(training)
    curves = [tuple(driver.losses[job["id"]].values()) for job in made]
    assert {len(c) for c in curves} == {3}
    assert len(set(curves)) == 8


def test_a_worker_that_dies_is_replaced_and_at_the_second_death_its_trials_get_their_own(jobs, holders):
    ray, actors, registry = holders
    gpus = ray.get([a.gpu.remote() for a in actors])
    pair = [i for i, gpu in enumerate(gpus) if gpu == "0"]
    steady, driver = [jobs(i, "steady") for i in pair], Driver(ray, registry)
    driver.finish([actors[i].train.remote(job) for i, job in zip(pair, steady, strict=True)])
    reference = [driver.losses[job["id"]] for job in steady]
    for job in steady:
        ray.get(registry.left.remote(job["id"]))
    dying, driver = [jobs(i, "dying") for i in pair], Driver(ray, registry)
    training = [actors[i].train.remote(job) for i, job in zip(pair, dying, strict=True)]
    driver.until(lambda: len(driver.losses) == 2)
    for _ in range(2):
        where = workers_of(ray, registry, dying, ["0", "0"])
        assert where[0] == where[1]
        os.kill(where[0][0], signal.SIGKILL)
        time.sleep(1.0)  # both of them find it dead
    where = workers_of(ray, registry, dying, ["0", "0"])
    assert where[0] != where[1], "two deaths, and they still share a process"
    driver.finish(training)
    assert [driver.losses[job["id"]] for job in dying] == reference


def test_twenty_short_trials_on_one_worker_killed_twice_are_each_done_once(tmp_path):
    write_project(tmp_path, train=160)
    space = tmp_path / "many.py"
    budget = "trials=7, final_seeds=3, in_flight=8"
    space.write_text(SPACE.format(model=str(tmp_path / "model"), epochs=2, budget=budget), encoding="utf-8")
    out = tmp_path / "out"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        process = start(*arguments(space, out, "--trials-per-gpu", "8"), cwd=tmp_path)
    finally:
        os.sched_setaffinity(0, cores)
    killed = []
    watcher = threading.Thread(target=kill_workers, args=(process, out, (4, 10), killed))
    watcher.start()
    code, errors = finish(process, 600)
    watcher.join()
    assert code == 0, errors
    assert len(killed) == 2
    records = read(next(Path(out).glob("*/ledger.jsonl")).parent)
    ended = [r for r in records if r["event"] == "ended"]
    assert len(ended) == len({r["id"] for r in ended}) == 20
    assert {r["outcome"]["state"] for r in ended} <= {"DONE", "STOPPED"}


def kill_workers(process, out, moments, killed):
    import psutil

    for moment in moments:
        wait_for(out, "ended", moment, process, timeout=300)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "DeviceWorkerActor" in " ".join(child.cmdline()):
                child.kill()
                killed.append(child.pid)
