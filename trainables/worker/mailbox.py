"""The mailbox: worker slots request trials, device workers send reports, and the driver takes both and answers them.

The driver and each device worker wait for the answer to a message before they send the next one, and collect meanwhile: a
device worker the reports of all its trials, the driver all its decisions. So the number of messages grows with the number of
workers, not of trials. The class runs in a Ray actor but does not import Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

# By trial id: True if the trial shall continue after its report.
Verdicts = dict[str, bool]


class Mailbox:
    """Exchanges messages in one event loop, in which all methods run. The driver calls `take`, workers call the others."""

    def __init__(self) -> None:
        self._requests: list[str] = []
        self._reports: list[dict[str, Any]] = []
        self._waiting_slots: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        # (trial ids of one message, the future of its answer): not taken yet, and taken but not answered yet.
        self._untaken: list[tuple[list[str], asyncio.Future[Verdicts]]] = []
        self._taken: list[tuple[list[str], asyncio.Future[Verdicts]]] = []
        self._news: asyncio.Event | None = None

    async def job(self, slot: str) -> dict[str, Any] | None:
        """Wait for the next trial of a worker slot and return its job (see `Job`), or None if no trial is left for the slot.

        A slot's new request replaces its unanswered one.
        """
        self._requests.append(slot)
        future = self._waiting_slots[slot] = asyncio.get_running_loop().create_future()
        self._wake()
        return await future

    async def report(self, reports: Sequence[dict[str, Any]]) -> Verdicts:
        """Send reports, each {"id", "progress", "outcome", "test"}. Returns the driver's decisions when all are recorded.

        {"id", "environment_error"} instead says that the trial cannot be trained on this machine, with the reason.
        """
        self._reports += reports
        future: asyncio.Future[Verdicts] = asyncio.get_running_loop().create_future()
        self._untaken.append(([report["id"] for report in reports], future))
        self._wake()
        return await future

    async def take(
        self, jobs: Mapping[str, dict[str, Any] | None], verdicts: Verdicts, seconds: float
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Answer earlier messages, then wait for new ones and return (names of slots that request a trial, reports).

        `jobs`: for slots that requested a trial in any earlier call, a job, or None if no trial is left. `verdicts`: the
        decisions about all reports that the last call returned. Both lists are empty if nothing arrives within `seconds`.
        """
        self._answer(jobs, verdicts)
        self._news = asyncio.Event()
        if not (self._requests or self._reports):
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return [], []
        requests, self._requests = self._requests, []
        reports, self._reports = self._reports, []
        self._taken, self._untaken = self._untaken, []
        return requests, reports

    def _answer(self, jobs: Mapping[str, dict[str, Any] | None], verdicts: Verdicts) -> None:
        """Resolve the futures of the requests with `jobs`, and those of the reports that the last `take` returned."""
        for slot, job in jobs.items():
            future = self._waiting_slots.pop(slot)
            if not future.done():
                future.set_result(job)
        for ids, waiting in self._taken:
            if not waiting.done():
                waiting.set_result({trial_id: verdicts[trial_id] for trial_id in ids})
        self._taken = []

    def _wake(self) -> None:
        """Let a waiting `take` return, because a message arrived."""
        if self._news:
            self._news.set()
