"""The queue between workers and driver: Tune's worker slots request trials, device workers send reports, the driver takes both.

Each side has one request under way at a time and batches what accumulates meanwhile: a device worker the reports of all its
trials, the driver all its decisions. So the number of messages grows with the number of workers, not of trials. Runs in an
actor, knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

# By trial id: True if the trial continues after its report.
Verdicts = dict[str, bool]


class Mailbox:
    """All methods run in one event loop. The driver calls `take`, workers call the others."""

    def __init__(self) -> None:
        self._requests: list[str] = []
        self._reports: list[dict[str, Any]] = []
        self._waiting_slots: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        # (trial ids of one message, the future of its answer): not taken yet, and taken but not answered yet.
        self._untaken: list[tuple[list[str], asyncio.Future[Verdicts]]] = []
        self._taken: list[tuple[list[str], asyncio.Future[Verdicts]]] = []
        self._news: asyncio.Event | None = None

    async def job(self, slot: str) -> dict[str, Any] | None:
        """Wait for the next trial of a worker slot; None if there will be none. A new request replaces an unanswered one."""
        self._requests.append(slot)
        future = self._waiting_slots[slot] = asyncio.get_running_loop().create_future()
        self._wake()
        return await future

    async def report(self, reports: Sequence[dict[str, Any]]) -> Verdicts:
        """Send the reports of one device worker, each {"id", "progress", "outcome", "test"}; returns when they are recorded."""
        self._reports += reports
        future: asyncio.Future[Verdicts] = asyncio.get_running_loop().create_future()
        self._untaken.append(([report["id"] for report in reports], future))
        self._wake()
        return await future

    async def take(
        self, jobs: Mapping[str, dict[str, Any] | None], verdicts: Verdicts, seconds: float
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Answer what the last call took, then wait for and return new (requesting worker slots, reports).

        `jobs`: trials for worker slots that requested one in any earlier call. `verdicts`: a decision for every report that
        the last call returned. Both lists are empty if nothing arrives within `seconds`.
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
        for slot, job in jobs.items():
            future = self._waiting_slots.pop(slot)
            if not future.done():
                future.set_result(job)
        for ids, waiting in self._taken:
            if not waiting.done():
                waiting.set_result({trial_id: verdicts[trial_id] for trial_id in ids})
        self._taken = []

    def _wake(self) -> None:
        if self._news:
            self._news.set()
