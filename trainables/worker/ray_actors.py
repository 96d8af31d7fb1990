"""Lanes that trials share: an actor per device, the registry that owns them, and the trial's end of the line.

The registry is the sweep's desk too. It belongs to the driver, so that lanes die with it, however it ends. A lane's actor
holds no logical resource: the trials that use it do. When a lane dies, each of its trials asks the registry for the next one
and goes on from its last checkpoint; Tune hears nothing of it. A trial that was there both times when lanes died gets a lane of
its own, so that one that breaks its lane breaks nobody else's.
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

Settle = Callable[[Any, Exception | None], None]

NAMESPACE = "lanes"
# Epochs that residents train before they are asked for, so that the way to the driver and back costs nothing.
AHEAD = 1
# Deaths of its lane that a trial may see before it gets one of its own, and before it is given up.
DEATHS_SHARED, DEATHS = 2, 4
# Pause of a trial for which its device has no memory now, until it asks again.
ROOM_SECONDS = 5.0


class DeviceWorkerActor:
    """One lane in a process of its own: a thread trains, the actor's loop takes calls and sends reports to the desk.

    All residents' epochs that are there travel in one message, and the next one waits for its answer.
    """

    def __init__(self, gpu: bool, desk: Any):
        self._gpu, self._desk = gpu, desk
        self._calls: queue.SimpleQueue[tuple[Callable[[Any], Any], Settle]] = queue.SimpleQueue()
        self._training: dict[str, Settle] = {}
        self._outbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._mail: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._train, name="lane", daemon=True).start()

    @staticmethod
    def open(gpu: bool, ahead: int) -> Any:
        """The lane of this process; loads torch."""
        from trainables.worker.device_worker import open_device_worker

        return open_device_worker(gpu, ahead)

    async def where(self) -> tuple[int, str]:
        """This process's id and its GPU, "" without one."""
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")

    async def train(self, job: dict[str, Any]) -> bool:
        """Seat a trial and wait until it is over. False: its place was taken, or not given, for want of memory."""
        self._loop = asyncio.get_running_loop()
        future, settle = _future()
        self._training[job["id"]] = settle

        def seat(lane: Any) -> None:
            try:
                lane.enter(_job(job))
                lane.ask(job["id"])
            except Exception as error:
                self._settle(lane, job["id"], error)

        self._calls.put((seat, lambda value, error: None))
        over: bool = await future
        return over

    async def leave(self, trial_id: str) -> None:
        await self._in_thread(lambda lane: self._leave(lane, trial_id))

    def _leave(self, lane: Any, trial_id: str) -> None:
        lane.leave(trial_id)
        settle = self._training.pop(trial_id, None)
        if settle:
            settle(True, None)

    async def _send(self) -> None:
        """Deliver the reports there are, as long as there are any."""
        while not self._outbox.empty():
            reports = [self._outbox.get() for _ in range(self._outbox.qsize())]
            verdicts: Mapping[str, bool] = await self._desk.report.remote(reports)
            await self._in_thread(partial(self._hear, verdicts))
        self._mail = None

    def _hear(self, verdicts: Mapping[str, bool], lane: Any) -> None:
        for trial_id, goes_on in verdicts.items():
            if not goes_on:
                self._leave(lane, trial_id)
            elif trial_id in lane.residents:
                lane.ask(trial_id)

    async def _in_thread(self, call: Callable[[Any], Any]) -> Any:
        future, settle = _future()
        self._calls.put((call, settle))
        return await future

    def _train(self) -> None:
        try:
            lane = self.open(self._gpu, AHEAD)
            while True:
                self._answer(lane, wait=not lane.busy)
                lane.turn()
                self._collect(lane)
        except Exception as error:  # without its lane this process is of no use; nobody must wait for it
            while True:
                for settle in [self._training.pop(trial_id) for trial_id in list(self._training)]:
                    settle(None, error)
                self._calls.get()[1](None, error)

    def _answer(self, lane: Any, wait: bool) -> None:
        """Carry out the calls that have come in; with nobody to train, wait for one."""
        while wait or not self._calls.empty():
            call, settle = self._calls.get()
            wait = False
            try:
                settle(call(lane), None)
            except Exception as error:  # goes to the caller, whose trial it concerns
                settle(None, error)

    def _collect(self, lane: Any) -> None:
        """Put what the residents have finished into the outbox, and end the wait of those who were evicted."""
        for trial_id, error in list(lane.failures.items()):
            self._settle(lane, trial_id, error)
        for trial_id, resident in lane.residents.items():
            if resident.ready:
                self._outbox.put({"id": trial_id, **resident.take().to_json()})
        if not self._outbox.empty():
            assert self._loop, "residents come through the loop"
            self._loop.call_soon_threadsafe(self._mail_if_idle)

    def _mail_if_idle(self) -> None:
        if self._mail is None:
            self._mail = asyncio.get_running_loop().create_task(self._send())

    def _settle(self, lane: Any, trial_id: str, error: Exception) -> None:
        """Tell whoever waits for this trial what ended it: an error of its own, or the others' need of memory."""
        lane.failures.pop(trial_id, None)
        settle = self._training.pop(trial_id, None)
        if settle:
            settle(False, None) if _is_crowded_out(lane, error) else settle(None, error)


class WorkerRegistry(Mailbox):
    """The desk of a sweep. Says where a trial's lane is, and starts it where there is none."""

    host = DeviceWorkerActor

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict[str, Any] = {}
        self._homes: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()
        self._started = 0

    def find(self, trial_id: str, node: str, gpu: str) -> tuple[str, int, Any]:
        """(key, generation, actor) of the trial's lane on its node and GPU ("" without one). Raises after too many deaths."""
        deaths = self._deaths[trial_id]
        if deaths >= DEATHS:
            raise RuntimeError(f"its lane died {deaths} times while it was resident, the last ones with it alone")
        key = f"{node}/{gpu}" if gpu else self._core(trial_id, node)
        if deaths >= DEATHS_SHARED:
            key = f"{key}/{trial_id}"
        self._homes[trial_id] = key
        if key not in self._hosts:
            self._started += 1
            self._hosts[key] = (self._started, self._start(node, gpu))
        return key, *self._hosts[key]

    def died(self, key: str, generation: int) -> None:
        """A trial found this lane dead. The first one to tell counts it, for all who were there."""
        if self._hosts.get(key, (0, None))[0] != generation:
            return
        del self._hosts[key]
        there = [trial_id for trial_id, home in self._homes.items() if home == key]
        self._deaths.update(there)
        log.warning("lane %s died with %d trials", key, len(there))

    def left(self, trial_id: str) -> None:
        """The trial has ended, or is about to be trained elsewhere."""
        key = self._homes.pop(trial_id, "")
        if key.endswith(f"/{trial_id}"):
            self._hosts.pop(key, None)  # with its last handle the lane goes
        elif key in self._hosts:
            self._hosts[key][1].leave.remote(trial_id)

    def _core(self, trial_id: str, node: str) -> str:
        """The least occupied lane of a node without GPUs; a trial that comes again gets the one it had."""
        if trial_id in self._homes:
            return self._homes[trial_id].removesuffix(f"/{trial_id}")
        occupied = Counter(self._homes.values())
        cores = next(n["Resources"].get("CPU", 1) for n in ray.nodes() if n["NodeID"] == node)
        return min((f"{node}/core{i}" for i in range(max(1, int(cores)))), key=lambda key: occupied[key])

    def _start(self, node: str, gpu: str) -> Any:
        # An actor without logical GPUs sees all of the node's: which one is its own has to be said.
        variables = {"CUDA_VISIBLE_DEVICES": gpu}
        return (
            ray.remote(self.host)
            .options(
                num_cpus=0,
                max_concurrency=1000,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                runtime_env={"env_vars": variables},
            )
            .remote(bool(gpu), ray.get_runtime_context().current_actor)
        )


class RemoteTrial:
    """A trial that a lane in another process trains."""

    def __init__(self, job: dict[str, Any], registry: Any):
        self._job, self._registry = job, registry
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._gpu = (context.get_accelerator_ids().get("GPU") or [""])[0]

    def train(self) -> None:
        """Wait until the trial is over; a lane that dies meanwhile is replaced. Raises what made the trial fail."""
        while True:
            key, generation, host = ray.get(self._registry.find.remote(self._job["id"], self._node, self._gpu))
            try:
                if ray.get(host.train.remote(self._job)):
                    return
                time.sleep(ROOM_SECONDS)
            except RayActorError:
                ray.get(self._registry.died.remote(key, generation))


def open_registry(name: str, kind: type[WorkerRegistry] = WorkerRegistry) -> Any:
    """Start the registry of a sweep under this name; it lives as long as the caller holds it."""
    # Every place and every lane may have a call waiting there.
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "max_concurrency": 100_000}
    return ray.remote(kind).options(**options).remote()


def find_registry(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)


def _is_crowded_out(lane: Any, error: Exception) -> bool:
    """Return whether a trial failed for lack of memory that other trials of the device hold, so that it may be tried again."""
    # Torch is loaded where a lane is, and nowhere else that imports this module.
    from torch import OutOfMemoryError

    from trainables.worker.device_worker import OutOfDeviceMemory

    return isinstance(error, OutOfMemoryError | OutOfDeviceMemory) and bool(lane.residents)


def _job(record: dict[str, Any]) -> Any:
    from trainables.worker.device_worker import Job

    return Job.from_json(record)


def _future() -> tuple[asyncio.Future[Any], Settle]:
    """A future of the running loop, and what settles it from any thread; settling it twice changes nothing."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        def now() -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)

        loop.call_soon_threadsafe(now)

    return future, settle
