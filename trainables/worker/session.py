"""The session of a device worker: it trains what the driver assigns to its device, until it is told to end.

One thread trains; a second one fetches orders, a third one sends messages. The device worker is used by the training thread
alone, between two steps. Ray is not used here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from search_spaces.redaction import clean_line
from trainables.training.activity import record_activity

# Epochs that trials train before they are requested, so that they need not wait for the driver's answer.
EPOCHS_AHEAD = 1


class DriverLink(Protocol):
    """The way to the driver. Each method waits for its answer, and raises an exception if the driver is lost."""

    def orders(self) -> Mapping[str, Any]:
        """Return the next orders: {"jobs": trials to train, "close": whether to end}."""

    def report(self, messages: list[dict[str, Any]]) -> Mapping[str, bool]:
        """Send messages and return by trial id whether the trial shall continue."""

    def prepare(self, record: Mapping[str, Any]) -> Any:
        """Return the `Job` of an order, with paths on this node."""


class WorkerSession:
    """Trains the trials of one device. `worker`: its `DeviceWorker`. `where`: the machine's name, for messages."""

    def __init__(self, driver: DriverLink, worker: Any, where: str = ""):
        self._driver, self._worker, self._where = driver, worker, where
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._closed = False

    def run(self) -> None:
        """Train until the driver says that nothing is left. Raises what ends the process: a lost driver, a lost device."""
        for target in (self._receive, self._send):
            threading.Thread(target=self._guarded, args=(target,), name=target.__name__, daemon=True).start()
        while True:
            self._run_calls(wait=not self._worker.has_work)
            if self._closed:
                return
            self._worker.step()
            record_activity()
            self._collect()

    def _run_calls(self, wait: bool) -> None:
        """Run what the other threads have queued. With `wait`, block until there is at least one call."""
        while wait or not self._calls.empty():
            self._calls.get()()
            wait = False

    def _guarded(self, target: Callable[[], None]) -> None:
        """Run a thread; an exception of it is raised in the training thread."""
        try:
            target()
        except BaseException as error:
            self._calls.put(partial(_raise, error))

    def _receive(self) -> None:
        while True:
            orders = self._driver.orders()
            self._calls.put(partial(self._obey, orders))
            if orders["close"]:
                return

    def _send(self) -> None:
        """Send all queued messages in one call, and the next ones when it has been answered."""
        while True:
            messages = [self._outbox.get()]
            messages += [self._outbox.get() for _ in range(self._outbox.qsize())]
            epochs = {message["id"] for message in messages if "progress" in message}
            verdicts = self._driver.report(messages)
            self._calls.put(partial(self._apply, {each: verdicts[each] for each in epochs}))

    def _obey(self, orders: Mapping[str, Any]) -> None:
        self._closed = orders["close"]
        for job in orders["jobs"]:
            try:
                self._worker.add_trial(self._driver.prepare(job))
                self._worker.request_epoch(job["id"])
            except Exception as error:
                self._tell(job["id"], error)

    def _apply(self, verdicts: Mapping[str, bool]) -> None:
        """Apply the driver's decisions: remove a trial that is stopped, request one more epoch of the others."""
        for trial_id, goes_on in verdicts.items():
            if not goes_on:
                self._worker.remove_trial(trial_id)
            elif trial_id in self._worker.residents:
                self._worker.request_epoch(trial_id)

    def _collect(self) -> None:
        """Queue the reports of finished epochs, and the errors of trials that failed."""
        for trial_id, resident in self._worker.residents.items():
            if resident.has_report:
                self._outbox.put({"id": trial_id, **resident.next_report().to_json()})
        for trial_id, error in list(self._worker.failures.items()):
            self._tell(trial_id, error)

    def _tell(self, trial_id: str, error: Exception) -> None:
        """Remove a trial and queue the message that says why it cannot be trained."""
        from trainables.worker.worker_environment import as_environment_error

        self._worker.remove_trial(trial_id)
        unfit = as_environment_error(error)
        if _is_crowded_out(self._worker.residents, error):
            self._outbox.put({"id": trial_id, "crowded": True})
        elif unfit:
            self._outbox.put({"id": trial_id, "environment_error": clean_line(f"{self._where}: {unfit}")})
        else:
            self._outbox.put({"id": trial_id, "error": clean_line(f"{type(error).__name__}: {error}")})


def _raise(error: BaseException) -> None:
    raise error


def _is_crowded_out(others: Iterable[str], error: Exception) -> bool:
    """Return whether a trial failed because other trials of its device hold the memory, so that it may be tried again later."""
    # Only a process with a device worker loads torch.
    from torch import OutOfMemoryError

    from trainables.worker.device_worker import OutOfDeviceMemory

    return isinstance(error, OutOfMemoryError | OutOfDeviceMemory) and bool(list(others))
