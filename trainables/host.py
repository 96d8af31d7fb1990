"""Lanes that trials share: an actor per device, the registry that owns them, and the trial's end of the line.

The registry belongs to the driver, so that lanes die with it, however it ends. A lane's actor holds no logical resource: the
trials that use it do. When a lane dies, each of its trials asks the registry for the next one and goes on from its last
checkpoint; Tune hears nothing of it. A trial that was there both times when lanes died gets a lane of its own, so that one
that breaks its lane breaks nobody else's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)

NAMESPACE = "lanes"
# Epochs that residents train before they are asked for, so that the way to the driver and back costs nothing.
AHEAD = 1
# Deaths of its lane that a trial may see before it gets one of its own, and before it is given up.
DEATHS_SHARED, DEATHS = 2, 4
# Pause of a trial for which its device has no memory now, until it asks again.
ROOM_SECONDS = 5.0


class LaneHost:
    """One lane in a process of its own: a thread trains, the actor's loop takes calls."""

    def __init__(self, gpu: bool):
        self._gpu = gpu
        self._calls: queue.SimpleQueue[tuple[Callable[[Any], Any], Callable[[Any, Exception | None], None]]] = (
            queue.SimpleQueue()
        )
        self._waiting: dict[str, Callable[[Any, Exception | None], None]] = {}
        threading.Thread(target=self._train, name="lane", daemon=True).start()

    async def enter(self, job: dict[str, Any]) -> tuple[int, str] | None:
        """Seat a trial; returns where: this process's id and its GPU, "" without one. None: there is no room now."""

        def seat(lane: Any) -> bool:
            try:
                lane.enter(_job(job))
            except Exception as error:
                if not _crowded(lane, error):
                    raise
                return False
            return True

        seated = await self._in_thread(seat)
        return (os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")) if seated else None

    async def leave(self, trial_id: str) -> None:
        self._waiting.pop(trial_id, None)
        await self._in_thread(lambda lane: lane.leave(trial_id))

    async def next(self, trial_id: str) -> str:
        """The next epoch's report as JSON text, once there is one; "" when the trial lost its place for want of memory."""
        future, settle = _future()
        self._waiting[trial_id] = settle
        await self._in_thread(lambda lane: lane.ask(trial_id))
        return await future

    async def _in_thread(self, call: Callable[[Any], Any]) -> Any:
        future, settle = _future()
        self._calls.put((call, settle))
        return await future

    def _train(self) -> None:
        try:
            from trainables.lane import open_lane

            lane = open_lane(self._gpu, AHEAD)
            while True:
                self._answer(lane, wait=not lane.busy)
                lane.turn()
                self._deliver(lane)
        except Exception as error:  # without its lane this process is of no use; nobody must wait for it
            while True:
                for settle in [self._waiting.pop(trial_id) for trial_id in list(self._waiting)]:
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

    def _deliver(self, lane: Any) -> None:
        for trial_id, settle in list(self._waiting.items()):
            if trial_id in lane.failures:
                self._waiting.pop(trial_id, None)
                error = lane.failures[trial_id]
                settle("", None) if _crowded(lane, error) else settle(None, error)
            elif trial_id in lane.residents and lane.residents[trial_id].ready:
                self._waiting.pop(trial_id, None)
                settle(json.dumps(lane.residents[trial_id].take().to_json()), None)


class Registry:
    """Says where a trial's lane is, and starts it where there is none."""

    def __init__(self) -> None:
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
            ray.remote(LaneHost)
            .options(
                num_cpus=0,
                max_concurrency=1000,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                runtime_env={"env_vars": variables},
            )
            .remote(bool(gpu))
        )


class Remote:
    """A resident of a lane in another process; `where` is that process's id and GPU."""

    def __init__(self, job: dict[str, Any], registry: str):
        self._job, self._trial_id = job, str(job["id"])
        self._registry = ray.get_actor(registry, namespace=NAMESPACE)
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._gpu = (context.get_accelerator_ids().get("GPU") or [""])[0]
        self._key, self._generation = "", 0
        self._host: Any = None
        self._enter()

    def next(self) -> str:
        """The next epoch's report as JSON text; a lane that died meanwhile is replaced."""
        while True:
            try:
                text: str = ray.get(self._host.next.remote(self._trial_id))
            except RayActorError:
                self._enter(dead=True)
                continue
            if text:
                return text
            time.sleep(ROOM_SECONDS)
            self._enter()

    def leave(self) -> None:
        self._registry.left.remote(self._trial_id)

    def _enter(self, dead: bool = False) -> None:
        while True:
            if dead:
                ray.get(self._registry.died.remote(self._key, self._generation))
            asked: Any = self._registry.find.remote(self._trial_id, self._node, self._gpu)
            self._key, self._generation, self._host = ray.get(asked)
            try:
                where: tuple[int, str] | None = ray.get(self._host.enter.remote(self._job))
            except RayActorError:
                dead = True
                continue
            if where:
                self.where = where
                return
            dead = False
            time.sleep(ROOM_SECONDS)


def open_registry(name: str) -> Any:
    """Start the registry of a sweep under this name; it lives as long as the caller holds it."""
    return ray.remote(Registry).options(name=name, namespace=NAMESPACE, num_cpus=0).remote()


def _crowded(lane: Any, error: Exception) -> bool:
    """Whether it is the others' memory that a trial lacks."""
    return type(error).__name__ in ("OutOfMemoryError", "NoRoom") and bool(lane.residents)


def _job(record: dict[str, Any]) -> Any:
    from trainables.lane import Job

    return Job.from_json(record)


def _future() -> tuple[asyncio.Future[Any], Callable[[Any, Exception | None], None]]:
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
