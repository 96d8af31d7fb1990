"""Ray Tune with our searcher and scheduler on logical GPUs: pinning, the limit of `--gpus`, retries and reasons."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[3]

# A trainable without torch: reports closed-form curves, and notes which device and process it had, and when.
SCRIPT = """
import json, os, sys, time
from pathlib import Path
root, gpus, per_gpu = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.environ.update(RAY_AIR_NEW_OUTPUT="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_USAGE_STATS_ENABLED="0")
import ray
from dataclasses import replace
from search_spaces.records import Trial
from trainables.worker.tune_trainable import TrialTrainable
from orchestrator.execution import tune_runner
from orchestrator.execution.cluster import share
from orchestrator.execution.progress import ProgressDisplay
from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.search.trial_names import TrialNames
from rich.console import Console
from tests.fixtures.fakes import curve, make_space, open_sweep, report

class Fake(TrialTrainable):
    def _train(self, job, registry):
        trial = Trial.from_json(job["trial"])
        for progress in curve(trial):
            began = time.time()
            time.sleep(0.05)
            if trial.cell.task == "t" and trial.lr == 1e-5 and trial.cell.method == "full":
                raise RuntimeError("no luck today")
            note = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": began, "ended": time.time(), "id": trial.id}
            with open(job["checkpoints"] + "/notes", "a") as file:
                file.write(json.dumps(note) + "\\n")
            if not ray.get(registry.report.remote([report(trial, progress)]))[trial.id]:
                return

tune_runner.TrialTrainable = Fake
ray.init(address="local", num_cpus=4, num_gpus=4, include_dashboard=False, log_to_driver=False, logging_level="error",
         _temp_dir=str(root / "ray"), runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})
sweep = open_sweep(make_space(), root)
data = {("m", task, 0): root for task in ("t", "u")}
paths = TrialPaths(sources={"m": "m"}, data=data, checkpoints=root)
# Two trials share a GPU, but each trains in its own process: no shared device worker is needed to see where Ray puts them.
part = share(gpus, per_gpu, 4)
class Unheard:
    def trial_ended(self, trial_id): ...

runner = tune_runner.TuneRunner(sweep=sweep, paths=paths, checkpoints=Unheard(), drain=tune_runner.Drain(""),
                                display=ProgressDisplay(TrialNames(sweep.space), Console(quiet=True)))
runner.run(replace(part, per_device=1), root)
states = [[e.outcome.state, e.outcome.reason] for s in sweep.searches.values() for e in s.entries]
print(json.dumps({"finished": sweep.finished, "states": states}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "per_gpu"), [(2, 2)])
def test_trials_are_pinned_to_at_most_the_asked_gpus(gpus, per_gpu):
    with TemporaryDirectory(
        prefix="g-"
    ) as root:  # a short path: Ray's sockets below it have names of at most 107 bytes
        check_trials_of(Path(root), gpus, per_gpu)


def check_trials_of(root, gpus, per_gpu):
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(root)}
    command = [sys.executable, "-c", SCRIPT, str(root), str(gpus), str(per_gpu)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().split("\n")[-1])
    assert result["finished"]
    failed = [reason for state, reason in result["states"] if state == "FAILED"]
    assert failed == ["RuntimeError: no luck today"] * 2
    notes = [json.loads(line) for line in (root / "notes").read_text(encoding="utf-8").splitlines()]
    assert {note["gpu"] for note in notes} <= {"0", "1", "2", "3"}
    for trial in {note["id"] for note in notes}:
        assert len({note["gpu"] for note in notes if note["id"] == trial}) == 1, "a trial moved"
    busiest = 0
    for moment in notes:
        now = [n["gpu"] for n in notes if n["began"] <= moment["began"] < n["ended"]]
        busiest = max(busiest, len(set(now)))
        assert len(now) <= gpus * per_gpu
        assert all(now.count(gpu) <= per_gpu for gpu in now)
    assert busiest == gpus


def test_a_trial_without_an_error_file_has_an_unknown_reason(tmp_path):
    from orchestrator.execution.tune_runner import reason_of

    assert reason_of(SimpleNamespace(error_file=None)) == "unknown"
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback\n  line\nValueError: lr is odd\n\n", encoding="utf-8")
    assert reason_of(SimpleNamespace(error_file=str(tmp_path / "error.txt"))) == "ValueError: lr is odd"


class FixedController:
    """A controller that asks for so many worker slots and has assigned these trials to some of them."""

    def __init__(self, num_slots, assigned):
        self.num_slots, self.assigned, self.failed = num_slots, dict(assigned), []

    def grow_slots(self):
        return self.num_slots

    def close_slot(self, slot):
        return self.assigned.pop(slot, "")

    def fail(self, trial_id, reason):
        self.failed.append((trial_id, reason))

    def requeue(self, trial_id, reason):
        self.failed.append((trial_id, f"requeued: {reason}"))


def test_worker_slots_are_opened_as_asked_for_up_to_the_share_and_the_search_ends_with_the_last(monkeypatch):
    from orchestrator.execution.tune_runner import WorkerSlotSearcher

    controller = FixedController(5, {})
    searcher = WorkerSlotSearcher(controller, 3, {"registry": "r"})
    opened = [searcher.suggest(f"p{i}") for i in range(5)]
    assert opened == [{"registry": "r", "slot": f"p{i}"} for i in range(3)] + [None, None]
    controller.num_slots = 0
    searcher.on_trial_complete("p0")
    searcher.on_trial_complete("p1")
    assert searcher.suggest("p5") is None, "a worker slot is still open"
    searcher.on_trial_complete("p2")
    assert searcher.suggest("p5") == "FINISHED"


def test_a_failed_worker_slot_fails_its_trial_and_too_many_without_one_end_the_run(monkeypatch):
    from orchestrator.execution import tune_runner

    ended = []
    monkeypatch.setattr(tune_runner, "end_tune_run", lambda: ended.append(True))
    controller = FixedController(9, {"p0": "trial"})
    searcher = tune_runner.WorkerSlotSearcher(controller, 9, {})
    searcher.reasons["p0"] = "no luck"
    for i in range(4):
        searcher.suggest(f"p{i}")
        assert ended == []
        searcher.on_trial_complete(f"p{i}", error=True)
    assert controller.failed == [("trial", "no luck")]
    assert ended == [True]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("ActorDiedError: The actor died because its node has died. Node Id: 12ab.", "requeued: "),
        ("RuntimeError: no luck today", ""),
    ],
)
def test_a_trial_whose_node_was_lost_is_trained_again_instead_of_failed(last, expected, tmp_path):
    from orchestrator.execution import tune_runner

    lost = "ActorDiedError: The actor died because its node has died. Node Id: 12ab."
    file = tmp_path / "error.txt"
    file.write_text(f"Failure # 1 (occurred at 1)\n{lost}\nFailure # 2 (occurred at 2)\n{last}\n", encoding="utf-8")
    controller = FixedController(1, {"p0": "trial"})
    searcher = tune_runner.WorkerSlotSearcher(controller, 1, {})
    scheduler = tune_runner.WorkerSlotScheduler(searcher)
    searcher.suggest("p0")
    scheduler.on_trial_error(None, SimpleNamespace(trial_id="p0", error_file=str(file)))
    searcher.on_trial_complete("p0", error=True)
    assert controller.failed == [("trial", expected + last)]
