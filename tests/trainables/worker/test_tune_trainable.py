"""A worker slot reports an error of its machine to the mailbox, and raises an error of its trial."""

from types import SimpleNamespace

import pytest

from trainables.backbone.hub import MissingModel
from trainables.tasks.tokens import DamagedTokens
from trainables.worker import tune_trainable
from trainables.worker.tune_trainable import TrialTrainable
from trainables.worker.worker_environment import WorkerEnvironmentError, code_hash


@pytest.fixture
def slot(monkeypatch):
    """A function that runs a slot whose trial ends with an error, and the reports that the mailbox got."""
    reports = []
    registry = SimpleNamespace(
        job=SimpleNamespace(remote=lambda slot: {"id": "t1"}), report=SimpleNamespace(remote=reports.extend)
    )
    monkeypatch.setattr(tune_trainable, "find_registry", lambda name: registry)
    here = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.3")
    monkeypatch.setattr(tune_trainable, "ray", SimpleNamespace(get=lambda value: value, util=here))

    def run(error):
        class Failing(TrialTrainable):
            config, _train = {"registry": "r", "slot": "s", "shared": False}, lambda self, job, registry: _raise(error)

        return Failing.step(Failing.__new__(Failing))

    return run, reports


def _raise(error):
    raise error


class RemoteError(Exception):
    """As Ray's: an error of another process is the `cause` of the one that is raised."""

    cause = WorkerEnvironmentError("this worker differs from the driver: torch 1.0 instead of 2.9")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device", "/out/x"), "OSError: [Errno 28] No space left on device: '/out/x'"),
        (FileNotFoundError(2, "No such file", "/out/y"), "FileNotFoundError: [Errno 2] No such file: '/out/y'"),
        (ModuleNotFoundError("No module named 'torch'"), "ModuleNotFoundError: No module named 'torch'"),
        (DamagedTokens("/out/tokens/z: cannot be read"), "DamagedTokens: /out/tokens/z: cannot be read"),
        (MissingModel("model 'm' is neither"), "MissingModel: model 'm' is neither"),
        (RemoteError(), str(RemoteError.cause)),
    ],
)
def test_an_error_of_the_machine_is_reported_with_its_node_and_the_trial_has_no_result(slot, error, text):
    run, reports = slot
    assert run(error) == {"trial": "t1", "done": True}
    assert reports == [{"id": "t1", "environment_error": f"node 10.0.0.3: {text}"}]


@pytest.mark.parametrize("error", [ValueError("lr is odd"), RuntimeError("boom"), MemoryError()])
def test_an_error_of_the_trial_is_raised(slot, error):
    run, reports = slot
    with pytest.raises(type(error)):
        run(error)
    assert reports == []


def test_the_hash_of_the_code_changes_with_every_file_but_those_of_spaces(tmp_path):
    for name in ("trainables/a.py", "trainables/methods/b.py", "search_spaces/c.py", "search_spaces/spaces/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    before = code_hash(tmp_path)
    (tmp_path / "search_spaces/spaces/d.py").write_text("x = 2")
    (tmp_path / "trainables/notes.txt").write_text("no code")
    assert code_hash(tmp_path) == before
    (tmp_path / "trainables/methods/b.py").write_text("x = 2")
    changed = code_hash(tmp_path)
    (tmp_path / "search_spaces/e.py").write_text("")
    assert len({before, changed, code_hash(tmp_path)}) == 3
