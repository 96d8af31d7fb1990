"""The threads around a device worker: orders come in, training goes on between them, one call at a time takes messages away."""

import queue
import threading
import time
from dataclasses import replace

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.hub import MissingModel
from trainables.tasks.tokens import DamagedTokens
from trainables.worker import device_worker
from trainables.worker.device_worker import DeviceWorker, Job
from trainables.worker.session import EPOCHS_AHEAD, WorkerSession
from trainables.worker.worker_environment import WorkerEnvironmentError

CPU = torch.device("cpu")


@pytest.fixture
def job(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data())
    recipe = Recipe(epochs=3)

    def make(seed=1, **changes):
        trial = replace(make_trial(seed=seed, r=4, recipe=recipe), weights=tiny_bert.fingerprint)
        places = {"source": str(tiny_bert.path), "data": "-", "checkpoints": str(tmp_path)}
        return {"id": trial.id, "trial": {**trial.to_json(), **changes}, **places}

    return make


class Driver:
    """Gives out jobs, answers messages after `seconds`, and closes the session when all trials have ended."""

    def __init__(self, *jobs, goes_on=lambda message: message["outcome"] is None, seconds=0.0):
        self.calls, self.most, self._under_way = [], 0, 0
        self._goes_on, self._seconds, self._running = goes_on, seconds, set()
        self._orders = queue.SimpleQueue()
        self.assign(*jobs)

    def assign(self, *jobs):
        self._running |= {job["id"] for job in jobs}
        self._orders.put({"jobs": [*jobs], "close": False})

    def orders(self):
        return self._orders.get(timeout=60)

    def prepare(self, record):
        return Job.from_json(record)

    def report(self, messages):
        self.calls.append(messages)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        time.sleep(self._seconds)
        self._under_way -= 1
        verdicts = {m["id"]: "progress" in m and self._goes_on(m) for m in messages}
        self._running -= {trial_id for trial_id, goes_on in verdicts.items() if not goes_on}
        self.after(messages)
        if not self._running:
            self._orders.put({"jobs": [], "close": True})
        return verdicts

    def after(self, messages): ...

    def of(self, job):
        return [message for call in self.calls for message in call if message["id"] == job["id"]]

    def epochs(self, job):
        return [message["progress"]["epoch"] for message in self.of(job)]


def run(driver, worker=None):
    WorkerSession(driver, worker or DeviceWorker(CPU, EPOCHS_AHEAD), "node 10.0.0.3").run()


def test_trials_train_side_by_side_and_each_is_over_when_its_driver_says_so(job):
    jobs = [job(seed) for seed in (1, 2, 3)]
    second = (jobs[1]["id"], 2)
    driver = Driver(*jobs, goes_on=lambda m: m["outcome"] is None and (m["id"], m["progress"]["epoch"]) != second)
    run(driver)
    assert [driver.epochs(each) for each in jobs] == [[1, 2, 3], [1, 2], [1, 2, 3]]


def test_what_residents_finish_while_a_call_is_under_way_travels_in_one(job):
    driver = Driver(*(job(seed) for seed in range(1, 7)), seconds=0.3)
    run(driver)
    assert driver.most == 1, "a worker sent messages before the last ones were answered"
    assert sum(map(len, driver.calls)) == 18
    assert len(driver.calls) <= 8, [len(call) for call in driver.calls]


ERRORS = [
    (ValueError("lr is odd"), {"error": "ValueError: lr is odd"}),
    (MemoryError(), {"error": "MemoryError:"}),
    (torch.OutOfMemoryError("too small"), {"error": "OutOfMemoryError: too small"}),
    (
        OSError(28, "No space left on device", "/out/x"),
        {"environment_error": "node 10.0.0.3: OSError: [Errno 28] No space left on device: '/out/x'"},
    ),
    (
        ModuleNotFoundError("No module named 'torch'"),
        {"environment_error": "node 10.0.0.3: ModuleNotFoundError: No module named 'torch'"},
    ),
    (
        DamagedTokens("/out/z: cannot be read"),
        {"environment_error": "node 10.0.0.3: DamagedTokens: /out/z: cannot be read"},
    ),
    (MissingModel("no model"), {"environment_error": "node 10.0.0.3: MissingModel: no model"}),
    (WorkerEnvironmentError("other code"), {"environment_error": "node 10.0.0.3: other code"}),
]


@pytest.mark.parametrize(("error", "message"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_the_driver_is_told_why_a_trial_cannot_be_added_and_the_session_goes_on(job, monkeypatch, error, message):
    real = DeviceWorker.add_trial

    def add_trial(self, added):
        if added.trial.seed == 2:
            raise error
        real(self, added)

    monkeypatch.setattr(DeviceWorker, "add_trial", add_trial)
    driver = Driver(job(2))
    driver.after = lambda messages: driver.assign(job(1)) if len(driver.calls) == 1 else None
    run(driver)
    assert driver.of(job(2)) == [{"id": job(2)["id"], **message}]
    assert driver.epochs(job(1)) == [1, 2, 3]


def test_a_trial_that_fails_while_it_trains_is_told_and_another_goes_on(job, monkeypatch):
    real = DeviceWorker.step

    def step(self):
        real(self)
        resident = self.residents.get(job(2)["id"])
        if resident and resident.has_report:
            self._evict(resident, RuntimeError("planted"))

    monkeypatch.setattr(DeviceWorker, "step", step)
    driver = Driver(job(1), job(2))
    run(driver)
    assert driver.of(job(2)) == [{"id": job(2)["id"], "error": "RuntimeError: planted"}]
    assert driver.epochs(job(1)) == [1, 2, 3]


def test_without_memory_for_one_more_a_trial_is_given_back_but_not_when_it_is_alone(job, monkeypatch):
    real = DeviceWorker.add_trial

    def add_trial(self, added):
        if added.trial.seed == 2:
            raise torch.OutOfMemoryError("planted")
        real(self, added)

    monkeypatch.setattr(DeviceWorker, "add_trial", add_trial)
    driver = Driver(job(1), job(2), goes_on=lambda message: False)

    def assign_again_once_alone(messages):
        if not driver._running and len(driver.of(job(2))) == 1:
            driver.assign(job(2))

    driver.after = assign_again_once_alone
    run(driver)
    assert driver.of(job(2)) == [
        {"id": job(2)["id"], "crowded": True},
        {"id": job(2)["id"], "error": "OutOfMemoryError: planted"},
    ]


def test_a_trial_that_comes_back_while_its_failure_is_under_way_is_trained(job, monkeypatch):
    """The answer to the message about its last stay must not end its next one: such a trial was waited for and never trained."""
    real, tries = DeviceWorker.add_trial, []

    def add_trial(self, added):
        tries.append(added.trial.id)
        if len(tries) == 1:
            raise OSError(5, "planted")
        real(self, added)

    monkeypatch.setattr(DeviceWorker, "add_trial", add_trial)
    driver = Driver(job(1))

    def assign_before_the_answer(messages):
        if len(driver.calls) == 1:
            driver.assign(job(1))
            time.sleep(0.5)  # the session has the new order before it has the verdict

    driver.after = assign_before_the_answer
    run(driver)
    assert [m["progress"]["epoch"] for m in driver.of(job(1))[1:]] == [1, 2, 3]


@pytest.mark.parametrize("call", ["orders", "report"])
def test_a_lost_driver_ends_the_session(job, monkeypatch, call):
    driver = Driver(job(1))

    def lost(*arguments):
        raise ConnectionError("the driver is gone")

    if call == "orders":
        given = iter([driver.orders])
        monkeypatch.setattr(driver, "orders", lambda: next(given, lost)())
    else:
        monkeypatch.setattr(driver, "report", lost)
    with pytest.raises(ConnectionError, match="gone"):
        run(driver)


def test_a_session_without_work_waits_without_using_the_processor(job):
    driver = Driver()
    driver._orders.get()
    session = threading.Thread(target=run, args=(driver,), daemon=True)
    before = time.process_time()
    session.start()
    time.sleep(0.5)
    assert time.process_time() - before < 0.2
    driver._orders.put({"jobs": [], "close": True})
    session.join(10)
    assert not session.is_alive()
