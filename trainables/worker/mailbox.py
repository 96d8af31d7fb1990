"""The mailbox: device workers fetch orders and send messages, and the driver takes both calls and answers them.

A device worker has at most one unanswered call of each kind, and collects meanwhile: its messages of all its trials; the driver
all its answers. So the number of calls grows with the number of workers, not of trials. The class runs in a Ray actor on the
driver's node but does not import Ray.

Messages are dictionaries. Each has "worker" and "process", its sender's name and the id of its process, and "id", a trial's id.
With "progress", "outcome" and "test" it reports an epoch, with "warning" if its checkpoint was not kept; instead of these,
"error" says why the trial failed, "environment_error" why it cannot be trained on this machine, and "crowded" that the device has
no memory for it beside others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainables.worker.checkpoint_store import read_files, write_files

# By (id of the sender's process, trial id): True if the trial shall continue after its report.
Verdicts = dict[tuple[str, str], bool]
# {"jobs": trials to train (see `Job`), "close": whether the worker shall end}.
Orders = dict[str, Any]


# Seconds for which what a driver said of its needs counts.
NEEDS_SECONDS = 60.0


class Needs(NamedTuple):
    """The devices of a sweep, of the `kind` "GPU" or "CPU": so many as it could use now, and so many as its workers have."""

    kind: str
    wanted: int
    held: int


class Mailbox:
    """Exchanges calls in one event loop, in which all methods run. The driver calls `take`, workers call the others.

    The driver also notes the needs of its sweep, for which the drivers of other sweeps on the cluster ask.

    For workers that do not see the sweep's folder, it reads the tokens files in `readable`, and reads and writes checkpoints in
    the folder `checkpoints`.
    """

    def __init__(self, checkpoints: Path | None = None, readable: Iterable[Path] = ()) -> None:
        self._checkpoints, self._readable = checkpoints, frozenset(readable)
        self._calls: list[dict[str, Any]] = []
        self._messages: list[dict[str, Any]] = []
        # By worker: its unanswered call for orders.
        self._waiting: dict[str, asyncio.Future[Orders]] = {}
        # (keys of the verdicts on one call's messages, the future of its answer): not taken yet, and taken but not answered yet.
        self._untaken: list[tuple[list[tuple[str, str]], asyncio.Future[Verdicts]]] = []
        self._taken: list[tuple[list[tuple[str, str]], asyncio.Future[Verdicts]]] = []
        self._news: asyncio.Event | None = None
        self._needs: tuple[Needs, float] | None = None

    async def orders(self, call: dict[str, Any]) -> Orders:
        """Wait for orders. `call`: "worker" and "process", and what the driver should know of the sender (`WorkerPool.greet`).

        A worker's new call replaces its unanswered one. If that was of another process, this one is told to end.
        """
        former = self._waiting.get(call["worker"])
        if former and not former.done():
            former.set_result({"jobs": [], "close": True})
        future: asyncio.Future[Orders] = asyncio.get_running_loop().create_future()
        self._waiting[call["worker"]] = future
        self._calls.append(call)
        self._wake()
        return await future

    async def ping(self, call: dict[str, Any]) -> None:
        """Tell the driver that the sender's process runs. `call`: as of `orders`, and "activity", see `activity_count`."""
        self._calls.append(call)
        self._wake()

    async def report(self, messages: Sequence[dict[str, Any]]) -> Verdicts:
        """Send messages. Returns the driver's decisions when all are recorded."""
        self._messages += messages
        future: asyncio.Future[Verdicts] = asyncio.get_running_loop().create_future()
        self._untaken.append(([key(message) for message in messages], future))
        self._wake()
        return await future

    async def note_needs(self, needs: Needs) -> None:
        self._needs = needs, time.monotonic()

    async def needs(self) -> Needs | None:
        """Return what the driver needs; None if it has said nothing lately, so that it may have stopped."""
        if self._needs is None or time.monotonic() > self._needs[1] + NEEDS_SECONDS:
            return None
        return self._needs[0]

    async def content(self, path: Path) -> bytes:
        """Return the content of a tokens file. Raises ValueError for any other file."""
        if path not in self._readable:
            raise ValueError(f"{path} is no tokens file of this sweep")
        return await asyncio.to_thread(path.read_bytes)

    async def fetch(self, trial_id: str) -> dict[str, bytes]:
        """Return the files of a trial's checkpoint by name; {} if there is none."""
        return await asyncio.to_thread(read_files, self._checkpoint(trial_id))

    async def store(self, trial_id: str, files: Mapping[str, bytes]) -> None:
        """Replace the files of a trial's checkpoint."""
        await asyncio.to_thread(write_files, self._checkpoint(trial_id), files)

    def _checkpoint(self, trial_id: str) -> Path:
        if self._checkpoints is None or not trial_id.isalnum():
            raise ValueError(f"there is no checkpoint of {trial_id!r}")
        return self._checkpoints / trial_id

    async def take(
        self, orders: Mapping[str, Orders], verdicts: Verdicts, seconds: float
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Answer earlier calls, then wait for new ones and return (calls for orders and pings, messages).

        `orders`: by workers whose call for orders any earlier `take` returned. `verdicts`: the decisions about all messages that
        the last one returned. Both lists are empty if nothing arrives within `seconds`.
        """
        self._answer(orders, verdicts)
        self._news = asyncio.Event()
        if not (self._calls or self._messages):
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return [], []
        calls, self._calls = self._calls, []
        messages, self._messages = self._messages, []
        self._taken, self._untaken = self._untaken, []
        return calls, messages

    def _answer(self, orders: Mapping[str, Orders], verdicts: Verdicts) -> None:
        """Resolve the futures of calls with `orders`, and those of the messages that the last `take` returned."""
        for worker, each in orders.items():
            future = self._waiting.pop(worker)
            if not future.done():
                future.set_result(each)
        for keys, waiting in self._taken:
            if not waiting.done():
                waiting.set_result({each: verdicts[each] for each in keys})
        self._taken = []

    def _wake(self) -> None:
        """Let a waiting `take` return, because a call arrived."""
        if self._news:
            self._news.set()


def key(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return the key of the verdict on a message."""
    return message["process"], message["id"]
