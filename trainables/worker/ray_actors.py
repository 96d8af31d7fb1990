"""Device workers as Ray actors, the registry that starts them, and the client that a Tune trial uses.

One actor per device trains all trials of that device. The registry, which is also the sweep's mailbox, is owned by the driver,
so that all actors end when the driver ends or is killed. A device worker's actor reserves no Ray resources, because the Tune
trials that use it reserve them. If an actor dies, each of its trials requests a new one from the registry and continues from
its last checkpoint, without Tune's retries. A trial that was resident when two actors died gets an actor of its own, so that a
trial that crashes its process cannot crash other trials again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.worker.mailbox import Mailbox

log = logging.getLogger(__name__)

# Sets the result or the exception of a future of the event loop; callable from any thread.
Resolve = Callable[[Any, Exception | None], None]

NAMESPACE = "device_workers"
# Epochs that trials train before they are requested, so that they need not wait for the driver's answer.
EPOCHS_AHEAD = 1
# Number of deaths of a trial's workers after which it gets a worker of its own, and after which it fails.
DEATHS_SHARED, DEATHS = 2, 4
# Pause before a trial that did not fit into device memory is submitted again.
RETRY_SECONDS = 5.0


class DeviceWorkerActor:
    """A device worker in its own process: a thread trains; the actor's event loop receives calls and sends reports.

    One message to the mailbox holds all reports that are ready. The next message is sent when it has been answered.
    """

    def __init__(self, gpu: bool, mailbox: Any):
        self._gpu, self._mailbox = gpu, mailbox
        self._calls: queue.SimpleQueue[tuple[Callable[[Any], Any], Resolve]] = queue.SimpleQueue()
        self._training: dict[str, Resolve] = {}
        self._outbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._mail: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._train, name="device-worker", daemon=True).start()

    @staticmethod
    def open_worker(gpu: bool, epochs_ahead: int) -> Any:
        """Return the device worker of this process. Loads torch."""
        from trainables.worker.device_worker import open_device_worker

        return open_device_worker(gpu, epochs_ahead)

    async def location(self) -> tuple[int, str]:
        """Return (process id, CUDA_VISIBLE_DEVICES of the process); the latter is "" for a worker on a CPU core."""
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")

    async def train(self, job: dict[str, Any]) -> bool:
        """Train a trial to its end and return True. Return False if the device memory did not suffice; then call again later.

        Raises the error that ended the trial.
        """
        self._loop = asyncio.get_running_loop()
        future, resolve = _future()

        def add(worker: Any) -> None:
            # Not earlier: a removal that was called before, of the trial's last stay here, would take this call for its own.
            self._training[job["id"]] = resolve
            try:
                worker.add_trial(_job(job))
                worker.request_epoch(job["id"])
            except Exception as error:
                self._end(worker, job["id"], error)

        def added(value: Any, error: Exception | None) -> None:
            if error:  # `add` raises nothing: this process has no device worker
                resolve(None, error)

        self._calls.put((add, added))
        over: bool = await future
        return over

    async def remove(self, trial_id: str) -> None:
        """Remove a trial. The pending call of `train` for it returns True."""
        await self._in_thread(lambda worker: self._remove(worker, trial_id))

    def _remove(self, worker: Any, trial_id: str) -> None:
        worker.remove_trial(trial_id)
        resolve = self._training.pop(trial_id, None)
        if resolve:
            resolve(True, None)

    async def _send(self) -> None:
        """Send the queued reports and apply the answers, until the queue is empty."""
        while not self._outbox.empty():
            reports = [self._outbox.get() for _ in range(self._outbox.qsize())]
            verdicts: Mapping[str, bool] = await self._mailbox.report.remote(reports)
            await self._in_thread(partial(self._apply, verdicts))
        self._mail = None

    def _apply(self, verdicts: Mapping[str, bool], worker: Any) -> None:
        """Apply the driver's decisions: remove a trial that is stopped, request one more epoch of the others."""
        for trial_id, goes_on in verdicts.items():
            if not goes_on:
                self._remove(worker, trial_id)
            elif trial_id in worker.residents:
                worker.request_epoch(trial_id)

    async def _in_thread(self, call: Callable[[Any], Any]) -> Any:
        """Run `call(worker)` in the training thread between two steps; return its result or raise its exception."""
        future, resolve = _future()
        self._calls.put((call, resolve))
        return await future

    def _train(self) -> None:
        """The training thread: run queued calls, train one step, queue reports, forever."""
        try:
            worker = self.open_worker(self._gpu, EPOCHS_AHEAD)
            while True:
                self._run_calls(worker, wait=not worker.has_work)
                worker.step()
                self._collect(worker)
        except Exception as error:  # without its device worker this process is useless: every caller gets the error
            while True:
                for resolve in [self._training.pop(trial_id) for trial_id in list(self._training)]:
                    resolve(None, error)
                self._calls.get()[1](None, error)

    def _run_calls(self, worker: Any, wait: bool) -> None:
        """Run the calls that are queued. With `wait`, block until there is at least one."""
        while wait or not self._calls.empty():
            call, resolve = self._calls.get()
            wait = False
            try:
                resolve(call(worker), None)
            except Exception as error:  # goes to the caller, whose trial it concerns
                resolve(None, error)

    def _collect(self, worker: Any) -> None:
        """Queue the reports of finished epochs for sending, and end the calls of `train` for trials that failed."""
        for trial_id, error in list(worker.failures.items()):
            self._end(worker, trial_id, error)
        for trial_id, resident in worker.residents.items():
            if resident.has_report:
                self._outbox.put({"id": trial_id, **resident.next_report().to_json()})
        if not self._outbox.empty():
            assert self._loop, "residents come through the loop"
            self._loop.call_soon_threadsafe(self._mail_if_idle)

    def _mail_if_idle(self) -> None:
        if self._mail is None:
            self._mail = asyncio.get_running_loop().create_task(self._send())

    def _end(self, worker: Any, trial_id: str, error: Exception) -> None:
        """End the trial's call of `train`: it raises `error`, or returns False if other trials hold the memory."""
        worker.failures.pop(trial_id, None)
        resolve = self._training.pop(trial_id, None)
        if resolve:
            resolve(False, None) if _is_crowded_out(worker, error) else resolve(None, error)


class WorkerRegistry(Mailbox):
    """The mailbox of a sweep and the list of its device workers, which it starts as needed. It runs as a Ray actor."""

    actor_class = DeviceWorkerActor

    def __init__(self) -> None:
        super().__init__()
        # By worker key (node/gpu or node/core, + /trial id if it has one trial alone): (generation, actor).
        self._actors: dict[str, Any] = {}
        # By trial id: key of its worker.
        self._worker_of: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()
        self._started = 0

    def find(self, trial_id: str, node: str, gpu: str) -> tuple[str, int, Any]:
        """Return (key, generation, actor) of the trial's worker on a node and GPU ("": CPU), starting it if there is none.

        The generation distinguishes the actors that a key had. Raises RuntimeError if the trial's workers died DEATHS times.
        """
        deaths = self._deaths[trial_id]
        if deaths >= DEATHS:
            raise RuntimeError(f"its worker died {deaths} times while training it, the last times with no other trial")
        key = f"{node}/{gpu}" if gpu else self._core(trial_id, node)
        if deaths >= DEATHS_SHARED:
            key = f"{key}/{trial_id}"
        self._worker_of[trial_id] = key
        if key not in self._actors:
            self._started += 1
            self._actors[key] = (self._started, self._start(node, gpu))
        return key, *self._actors[key]

    def died(self, key: str, generation: int) -> None:
        """Remove a dead worker and count one death for each of its trials. Later reports of the same death are ignored."""
        if self._actors.get(key, (0, None))[0] != generation:
            return
        del self._actors[key]
        trials = [trial_id for trial_id, worker in self._worker_of.items() if worker == key]
        self._deaths.update(trials)
        log.warning("worker %s died with %d trials", key, len(trials))

    def left(self, trial_id: str) -> None:
        """Remove the trial from its worker, because it ended or will train on another device."""
        key = self._worker_of.pop(trial_id, "")
        if key.endswith(f"/{trial_id}"):
            self._actors.pop(key, None)  # Ray ends an actor when its last handle is deleted
        elif key in self._actors:
            self._actors[key][1].remove.remote(trial_id)

    def _core(self, trial_id: str, node: str) -> str:
        """Return the key of the CPU core with the fewest trials on a node. A trial that has a worker there keeps it."""
        known = self._worker_of.get(trial_id, "").removesuffix(f"/{trial_id}")
        if known.startswith(f"{node}/"):
            return known
        occupied = Counter(self._worker_of.values())
        cores = next(n["Resources"].get("CPU", 1) for n in ray.nodes() if n["NodeID"] == node)
        return min((f"{node}/core{i}" for i in range(max(1, int(cores)))), key=lambda key: occupied[key])

    def _start(self, node: str, gpu: str) -> Any:
        # Ray does not restrict the visible GPUs of an actor that reserves none, so its GPU is set here.
        variables = {"CUDA_VISIBLE_DEVICES": gpu}
        return (
            ray.remote(self.actor_class)
            .options(
                num_cpus=0,
                max_concurrency=1000,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                runtime_env={"env_vars": variables},
            )
            .remote(bool(gpu), ray.get_runtime_context().current_actor)
        )


class RemoteTrial:
    """Client of a trial that a device worker in another process trains."""

    def __init__(self, job: dict[str, Any], registry: Any):
        self._job, self._registry = job, registry
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._gpu = (context.get_accelerator_ids().get("GPU") or [""])[0]

    def train(self) -> None:
        """Train the trial to its end; if its worker dies, continue on a new one. Raises the error that ended the trial."""
        while True:
            key, generation, actor = ray.get(self._registry.find.remote(self._job["id"], self._node, self._gpu))
            try:
                if ray.get(actor.train.remote(self._job)):
                    return
                time.sleep(RETRY_SECONDS)
            except RayActorError:
                ray.get(self._registry.died.remote(key, generation))


def open_registry(name: str, kind: type[WorkerRegistry] = WorkerRegistry) -> Any:
    """Start the registry of a sweep under this name and return its handle. The registry ends when the handle is deleted.

    It runs on the driver's node, so that no other node takes it along when it is lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Large, because every worker slot and every device worker may have a call that waits for an answer.
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "max_concurrency": 100_000}
    options["scheduling_strategy"] = here
    return ray.remote(kind).options(**options).remote()


def find_registry(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)


def _is_crowded_out(worker: Any, error: Exception) -> bool:
    """Return whether a trial failed because other trials of its device hold the memory, so that it may be tried again later."""
    # Only a process with a device worker loads torch.
    from torch import OutOfMemoryError

    from trainables.worker.device_worker import OutOfDeviceMemory

    return isinstance(error, OutOfMemoryError | OutOfDeviceMemory) and bool(worker.residents)


def _job(record: dict[str, Any]) -> Any:
    from trainables.worker.device_worker import Job

    return Job.from_json(record)


def _future() -> tuple[asyncio.Future[Any], Resolve]:
    """Return a future of the running event loop and a thread-safe function that sets its result. Further calls do nothing."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def resolve(value: Any, error: Exception | None) -> None:
        def now() -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)

        loop.call_soon_threadsafe(now)

    return future, resolve
