"""A worker pings; one of a machine that cannot train says so and waits; the hash of the code tells whether it is the driver's."""

import time
from types import SimpleNamespace

import pytest
import torch

from tests.fixtures.trials import make_trial
from trainables.training.activity import record_activity
from trainables.worker import tune_trainable
from trainables.worker.file_system_store import open_store
from trainables.worker.tune_trainable import DeviceTrainable, MailboxLink
from trainables.worker.worker_environment import code_hash, environment


@pytest.fixture
def step(monkeypatch):
    """A function that runs a worker with these GPUs and this expected environment, and returns its calls for orders.

    The worker's pings are added to `pings`, and it is told to end after `num_pings` of them.
    """

    def run(gpus, expected, pings=None, num_pings=0, **config):
        calls, pings = [], [] if pings is None else pings

        def orders(call):
            calls.append(call)
            while len(pings) < num_pings:
                record_activity()
                time.sleep(0.001)
            return {"jobs": [], "close": len(calls) == 2}

        mailbox = SimpleNamespace(orders=SimpleNamespace(remote=orders), ping=SimpleNamespace(remote=pings.append))
        context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": gpus})
        here = SimpleNamespace(
            get=lambda value: value,
            get_actor=lambda name, namespace: mailbox,
            get_runtime_context=lambda: context,
            util=SimpleNamespace(get_node_ip_address=lambda: "10.0.0.3"),
        )
        monkeypatch.setattr(tune_trainable, "ray", here)
        worker = DeviceTrainable.__new__(DeviceTrainable)
        worker.config = {"worker": "w", "mailbox": "m", "environment": expected, "ping_seconds": 0.01, **config}
        assert worker.step() == {"done": True}
        return calls

    return run


@pytest.fixture
def link(monkeypatch):
    monkeypatch.setattr(tune_trainable, "ray", SimpleNamespace(get_actor=lambda name, namespace: None))
    return MailboxLink({"worker": "w", "mailbox": "m"}, "10.0.0.3", [])


def test_other_code_is_told_instead_of_trained_with(step):
    first, second = step([], {"code": "0" * 16, "torch": environment()["torch"]})
    assert first == second
    assert (first["worker"], first["node"], first["device"]) == ("w", "10.0.0.3", "a core")
    assert first["unfit"].startswith(
        f"this worker differs from the driver: code {environment()['code']} instead of 000"
    )


def test_a_worker_pings_with_its_activity_until_it_ends(step):
    pings = []
    first, *_ = step([], {"code": "0" * 16}, pings, 3)
    assert {name: pings[0][name] for name in ("worker", "process", "node", "device")} == {
        name: first[name] for name in ("worker", "process", "node", "device")
    }
    assert pings[0]["activity"] < pings[1]["activity"] < pings[2]["activity"]
    time.sleep(0.05)
    number = len(pings)
    time.sleep(0.1)
    assert len(pings) == number


def test_a_machine_that_does_not_reach_the_place_of_the_checkpoints_says_so(step, tmp_path):
    first, _ = step([], environment(), storage=str(tmp_path / "kept"), sweep="s")
    assert first["unfit"].startswith(f"--checkpoints {tmp_path}/kept: cannot be used")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_torch_does_not_see_is_an_error_and_never_a_silent_core(step):
    first, _ = step(["3"], environment())
    assert first["unfit"] == "Ray gave this worker GPU 3, and torch finds no GPU that it can use"
    assert first["device"] == "GPU 3"


def test_with_a_place_for_checkpoints_trials_keep_them_there_on_every_node(link, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").write_text('{"sweep": "s"}')
    record = {"trial": make_trial("lora", r=2).to_json(), "source": "m", "data": str(tmp_path / "data"), "sweep": "s"}
    record["checkpoints"] = str(tmp_path / "out" / "checkpoints")
    assert link.prepare(record).store is None
    job = link.prepare({**record, "storage": str(tmp_path / "kept")})
    assert job.data == tmp_path / "data"
    assert job.store is open_store(str(tmp_path / "kept"), "s")
    own = job.folder.parent.parent
    assert own.is_dir()
    assert tmp_path not in own.parents
    link.close()
    assert not own.exists()


def test_the_hash_of_the_code_changes_with_every_file_but_those_of_spaces(tmp_path):
    for name in ("trainables/a.py", "trainables/methods/b.py", "search_spaces/c.py", "search_spaces/spaces/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    folders = [tmp_path / "trainables", tmp_path / "search_spaces"]
    before = code_hash(folders)
    (tmp_path / "search_spaces/spaces/d.py").write_text("x = 2")
    (tmp_path / "trainables/notes.txt").write_text("no code")
    assert code_hash(folders) == before
    (tmp_path / "trainables/methods/b.py").write_text("x = 2")
    changed = code_hash(folders)
    (tmp_path / "search_spaces/e.py").write_text("")
    assert len({before, changed, code_hash(folders)}) == 3
