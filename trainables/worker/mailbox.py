"""Where the trials of a sweep and its driver meet: places ask for a trial, lanes hand in reports, the driver takes both.

Each side sends one message at a time and what comes up meanwhile goes into its next one: a lane all its residents' reports,
the driver all its answers. So the number of messages follows the number of lanes and not of trials, and the busier everybody
is, the more one message carries. Runs in an actor, knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

# What the driver says about a trial that reported: whether it goes on.
Verdicts = dict[str, bool]


class Mailbox:
    """All of it runs in one event loop; `take` is the driver's, the rest everybody else's."""

    def __init__(self) -> None:
        self._asked: list[str] = []
        self._reports: list[dict[str, Any]] = []
        self._places: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        # Whose reports are here, and whose the driver has and will answer with its next call.
        self._handed_in: list[tuple[list[str], asyncio.Future[Verdicts]]] = []
        self._taken: list[tuple[list[str], asyncio.Future[Verdicts]]] = []
        self._news: asyncio.Event | None = None

    async def job(self, place: str) -> dict[str, Any] | None:
        """The next trial of this place, waited for; None when there will be none. Asking again replaces what was asked."""
        self._asked.append(place)
        future = self._places[place] = asyncio.get_running_loop().create_future()
        self._wake()
        return await future

    async def report(self, reports: Sequence[dict[str, Any]]) -> Verdicts:
        """Hand in epochs of one lane's residents, each {"id", "progress", "outcome", "test"}; returns once they are on record."""
        self._reports += reports
        future: asyncio.Future[Verdicts] = asyncio.get_running_loop().create_future()
        self._handed_in.append(([report["id"] for report in reports], future))
        self._wake()
        return await future

    async def take(
        self, jobs: Mapping[str, dict[str, Any] | None], verdicts: Verdicts, seconds: float
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Give the answers to what was taken before; returns the places that ask and the reports since, waited for.

        `jobs`: for places that asked at any time before. `verdicts`: for every trial whose report was taken with the call
        before this one. After `seconds` without news both lists are empty.
        """
        self._answer(jobs, verdicts)
        self._news = asyncio.Event()
        if not (self._asked or self._reports):
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return [], []
        asked, self._asked = self._asked, []
        reports, self._reports = self._reports, []
        self._taken, self._handed_in = self._handed_in, []
        return asked, reports

    def _answer(self, jobs: Mapping[str, dict[str, Any] | None], verdicts: Verdicts) -> None:
        for place, job in jobs.items():
            future = self._places.pop(place)
            if not future.done():
                future.set_result(job)
        for ids, waiting in self._taken:
            if not waiting.done():
                waiting.set_result({trial_id: verdicts[trial_id] for trial_id in ids})
        self._taken = []

    def _wake(self) -> None:
        if self._news:
            self._news.set()
