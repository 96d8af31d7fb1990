"""Ray Tune with our searcher and scheduler on logical GPUs: one worker for each device, pinned to it, restarts and reasons."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Device workers without torch: their trials have closed-form curves, and each epoch notes its device and process, and when.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
root, gpus, per_gpu, shared = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.environ.update(RAY_AIR_NEW_OUTPUT="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_USAGE_STATS_ENABLED="0")
import ray
from trainables.worker.tune_trainable import DeviceTrainable
from benchmarks.fake_worker import FakeDeviceWorker, FakeResident
from orchestrator.execution import tune_runner
from orchestrator.execution.cluster import share
from orchestrator.execution.progress import ProgressDisplay
from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.search.trial_names import TrialNames
from rich.console import Console
from tests.fixtures.fakes import make_space, open_sweep

class Noting(FakeDeviceWorker):
    def step(self):
        began = time.time()
        waiting = [r.trial for r in self.residents.values() if r.may_train(self._epochs_ahead)]
        super().step()
        for trial in waiting:
            if trial.cell.task == "t" and trial.lr == 1e-5 and trial.cell.method == "full":
                del self.residents[trial.id]
                self.failures[trial.id] = RuntimeError("no luck today")
            note = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": began, "ended": time.time(), "id": trial.id,
                    "pid": os.getpid()}
            with open(root / "notes", "a") as file:
                file.write(json.dumps(note) + "\\n")
        if len(waiting) and (root / "kill").exists():
            (root / "kill").unlink()
            os.kill(os.getpid(), 9)

class Fake(DeviceTrainable):
    @staticmethod
    def open_worker(gpus):
        return Noting(1, 0.5 if shared else 0.2)  # long enough for the last process to start

class OneDeviceForAWhile:
    "Stands for another sweep on the cluster, which lacks devices from the sixth to the twelfth second of training."
    is_due = True

    def __init__(self, *_): ...

    def look(self, num_workers, num_wanted):
        notes = root / "notes"
        passed = time.time() - json.loads(notes.read_text().split("\\n")[0])["began"] if notes.exists() else 0
        return 1 if 6 < passed < 12 else None

if shared:
    tune_runner.OtherSweeps = OneDeviceForAWhile
tune_runner.DeviceTrainable = Fake
ray.init(address="local", num_cpus=4, num_gpus=4, include_dashboard=False, log_to_driver=False, logging_level="error",
         _temp_dir=str(root / "ray"), runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})
sweep = open_sweep(make_space(), root)
data = {("m", task, 0): root for task in ("t", "u")}
paths = TrialPaths(sources={"m": "m"}, data=data, checkpoints=root)
class Unheard:
    def trial_ended(self, trial_id): ...

runner = tune_runner.TuneRunner(sweep=sweep, paths=paths, checkpoints=Unheard(), drain=tune_runner.Drain(""),
                                display=ProgressDisplay(TrialNames(sweep.space), Console(quiet=True)))
runner.run(share(gpus, per_gpu, [node["Resources"] for node in ray.nodes()]), root)
states = [[e.outcome.state, e.outcome.reason] for s in sweep.searches.values() for e in s.entries]
print(json.dumps({"finished": sweep.finished, "states": states}))
"""


@pytest.mark.slow
def test_each_gpu_has_one_worker_all_are_used_and_one_that_is_killed_is_replaced():
    with TemporaryDirectory(
        prefix="g-"
    ) as root:  # a short path: Ray's sockets below it have names of at most 107 bytes
        check_devices(Path(root), gpus=3, per_gpu=4)


@pytest.mark.slow
def test_workers_end_for_another_sweep_and_come_back_and_those_that_wait_for_a_device_are_withdrawn():
    with TemporaryDirectory(prefix="g-") as root:
        result, notes = run_on_gpus(Path(root), gpus=6, per_gpu=1, shared=True)  # of which there are 4
    assert result["finished"]
    began = notes[0]["began"]

    def at_once(start, end):
        return {note["pid"] for note in notes if began + start < note["began"] < began + end}

    before, meanwhile, after = at_once(0, 6), at_once(9, 12), at_once(12, 99)
    assert len(before) > 1
    assert len(meanwhile) == 1
    assert meanwhile < before
    assert len(after) > 1
    assert meanwhile == after & before, "the others are new processes"


def run_on_gpus(root, gpus, per_gpu, shared=False):
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(root)}
    command = [sys.executable, "-c", SCRIPT, str(root), str(gpus), str(per_gpu), str(int(shared))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    notes = [json.loads(line) for line in (root / "notes").read_text(encoding="utf-8").splitlines()]
    return json.loads(done.stdout.strip().split("\n")[-1]), sorted(notes, key=lambda note: note["began"])


def check_devices(root, gpus, per_gpu):
    (root / "kill").touch()
    result, notes = run_on_gpus(root, gpus, per_gpu)
    assert result["finished"]
    failed = [reason for state, reason in result["states"] if state == "FAILED"]
    assert failed
    assert set(failed) == {"RuntimeError: no luck today"}
    assert not (root / "kill").exists()
    processes = {gpu: {n["pid"] for n in notes if n["gpu"] == gpu} for gpu in {n["gpu"] for n in notes}}
    assert len(processes) >= gpus, "a GPU was left idle"  # the killed one's successor may get the fourth
    assert sum(map(len, processes.values())) == gpus + 1, (
        "one process for each device, and one in the place of the killed one"
    )
    for moment in notes:
        now = {(n["gpu"], n["id"]) for n in notes if n["began"] <= moment["began"] < n["ended"]}
        assert all(len({trial for g, trial in now if g == gpu}) <= per_gpu for gpu in processes)


def test_a_trial_without_an_error_file_has_an_unknown_reason(tmp_path):
    from orchestrator.execution.tune_runner import reason_of

    assert reason_of(SimpleNamespace(error_file=None)) == "unknown"
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback\n  line\nValueError: lr is odd\n\n", encoding="utf-8")
    assert reason_of(SimpleNamespace(error_file=str(tmp_path / "error.txt"))) == "ValueError: lr is odd"


class FixedController:
    """A controller that can use so many devices; of these workers the processes have started."""

    def __init__(self, num_workers, started=()):
        self.num_workers, self.started, self.died = num_workers, set(started), []
        self.limit, self.ended = None, []

    def grow_workers(self):
        return self.num_workers

    def worker_ended(self, worker):
        self.ended.append(worker)

    def worker_died(self, worker, reason, node_died):
        self.died.append((worker, reason, node_died))
        return worker in self.started


def test_workers_are_opened_as_asked_for_up_to_the_devices_and_the_search_ends_with_the_last():
    from orchestrator.execution.tune_runner import WorkerSearcher

    controller = FixedController(5)
    searcher = WorkerSearcher(controller, 3, {"mailbox": "m"})
    opened = [searcher.suggest(f"p{i}") for i in range(5)]
    assert opened == [{"mailbox": "m", "worker": f"p{i}"} for i in range(3)] + [None, None]
    controller.num_workers = 0
    searcher.on_trial_complete("p0")
    searcher.on_trial_complete("p1")
    assert searcher.suggest("p5") is None, "a worker is still open"
    searcher.on_trial_complete("p2")
    assert searcher.suggest("p5") == "FINISHED"


def test_beside_other_sweeps_fewer_workers_are_opened_and_those_that_wait_for_a_device_are_withdrawn():
    from ray.tune.experiment import Trial

    from orchestrator.execution.tune_runner import WorkerScheduler, WorkerSearcher

    controller = FixedController(5)
    controller.limit = 2
    searcher = WorkerSearcher(controller, 5, {})
    assert [bool(searcher.suggest(f"p{i}")) for i in range(3)] == [True, True, False]
    searcher.on_trial_complete("p0")
    assert controller.ended == ["p0"]
    assert searcher.suggest("p3")

    states = [Trial.RUNNING, Trial.PENDING, Trial.RUNNING, Trial.PENDING]
    live, stopped = [SimpleNamespace(status=state) for state in states], []
    tune = SimpleNamespace(get_live_trials=lambda: live, stop_trial=stopped.append)
    for limit, number in ((None, 0), (4, 0), (3, 1), (1, 2)):
        controller.limit = limit
        stopped.clear()
        assert WorkerScheduler(controller).choose_trial_to_run(tune) is None
        assert len(stopped) == number
        assert all(trial.status == Trial.PENDING for trial in stopped)


def test_deaths_are_told_and_too_many_starts_that_fail_in_a_row_end_the_run(monkeypatch, tmp_path):
    from orchestrator.execution import tune_runner

    ended = []
    monkeypatch.setattr(tune_runner, "end_tune_run", lambda: ended.append(True))
    controller = FixedController(9, {"p0"})
    scheduler = tune_runner.WorkerScheduler(controller)
    file = tmp_path / "error.txt"
    file.write_text("Failure # 1\nModuleNotFoundError: no torch\n", encoding="utf-8")
    for name in ("p1", "p2", "p0", "p1", "p1", "p2"):
        assert ended == []
        scheduler.on_trial_error(None, SimpleNamespace(trial_id=name, error_file=str(file)))
    assert ended == [True]
    assert controller.died[2] == ("p0", "ModuleNotFoundError: no torch", False)


@pytest.mark.parametrize(
    ("last", "node_died"),
    [
        ("ActorDiedError: The actor died because its node has died. Node Id: 12ab.", True),
        ("RuntimeError: no luck today", False),
    ],
)
def test_the_loss_of_a_node_is_told_from_the_last_failure(last, node_died, tmp_path):
    from orchestrator.execution import tune_runner

    lost = "ActorDiedError: The actor died because its node has died. Node Id: 12ab."
    file = tmp_path / "error.txt"
    file.write_text(f"Failure # 1 (occurred at 1)\n{lost}\nFailure # 2 (occurred at 2)\n{last}\n", encoding="utf-8")
    controller = FixedController(1, {"p0"})
    scheduler = tune_runner.WorkerScheduler(controller)
    scheduler.on_trial_error(None, SimpleNamespace(trial_id="p0", error_file=str(file)))
    assert controller.died == [("p0", last, node_died)]


def test_the_processes_of_workers_that_hang_are_ended_and_no_others(monkeypatch):
    from orchestrator.execution import tune_runner

    killed = []
    monkeypatch.setattr(tune_runner, "ray", SimpleNamespace(kill=killed.append))
    controller = SimpleNamespace(take_hanging=lambda: {"p1", "p2"}, error=None)
    display, drain = SimpleNamespace(is_due=False), SimpleNamespace(signal=None, due=False)
    actors = {"p0": "first", "p1": "second", "p2": None}  # the last one is being restarted
    trials = [SimpleNamespace(trial_id=k, temporary_state=SimpleNamespace(ray_actor=v)) for k, v in actors.items()]
    tune_runner.LoopCallback(controller, display, drain).on_step_end(1, trials)
    assert killed == ["second"]


def test_a_mailbox_that_does_not_answer_is_given_up_at_the_second_attempt(monkeypatch):
    from orchestrator.execution import tune_runner

    answers, killed = [], []

    def get(answer, timeout):
        answers.append(timeout)
        if len(answers) != 2:
            raise tune_runner.GetTimeoutError
        return answer

    monkeypatch.setattr(tune_runner, "ray", SimpleNamespace(get=get, kill=killed.append))
    actor = SimpleNamespace(take=SimpleNamespace(remote=lambda orders, verdicts, seconds: ([], [])))
    mailbox = tune_runner.RayMailbox(actor)
    assert mailbox.exchange({}, {}) == ([], []), "the driver itself was stopped meanwhile"
    with pytest.raises(tune_runner.RayError, match="did not answer for 120 s"):
        mailbox.exchange({}, {})
    assert answers == [tune_runner.MAILBOX_SECONDS] * 4
    assert killed == [actor]
