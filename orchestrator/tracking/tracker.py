"""Writes the ledger's records to MLflow in a thread of its own. The sweep neither waits for MLflow nor fails if MLflow fails.

The ledger is the queue, and the store contains the number of records that it has received. Nothing is therefore lost if the
store, the network or the driver fails. A store that has lost its runs is filled again from the first record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.ledger import LEDGER, Damaged, advice
from orchestrator.tracking.mlflow_store import Store, environment, refusal
from orchestrator.tracking.run_edits import Key
from orchestrator.tracking.run_projection import RunProjection
from orchestrator.tracking.system_metrics import SystemMetrics
from search_spaces.events import LedgerRecord, SweepOpened
from search_spaces.redaction import clean_line, redact

log = logging.getLogger(__name__)

# Seconds: between two deliveries; before a new attempt after a failure, doubled each time up to RETRY_LIMIT; and the longest
# pause while `drain` waits.
PERIOD, RETRY, RETRY_LIMIT, AWAITED = 0.5, 1.0, 30.0, 1.0
BATCH = 1000  # records per delivery; after each one the position is recorded in the store
CLOSING = 5.0  # seconds for which `close` waits for a delivery that has begun
# Seconds after which a delivery is said to hang. Requests to a server end by themselves after 10 s; those to a database may not.
HANGING = 120.0


class StoreRefused(EnvironmentUnfit):
    """The tracking store answered when it was first asked, and the answer will stay no. Exit code 4."""


class Tracker:
    """Writes the records of a ledger to MLflow in a thread of its own.

    `records` are those of the ledger; call `notify` when there are more of them. `artifacts` is the folder for files of a sqlite
    store, `folder` the sweep's folder, from which prediction files are copied. `system_metrics`: whether the use of this machine
    is recorded too.
    """

    def __init__(
        self,
        uri: str,
        artifacts: Path | None,
        folder: Path,
        records: Sequence[LedgerRecord],
        system_metrics: bool = False,
    ):
        self._uri, self._artifacts, self._folder = uri, artifacts, folder
        self._system_metrics = SystemMetrics(uri) if system_metrics else None
        self._records = records
        self._delivered = 0
        self._news = threading.Condition()
        self._closed = self._awaited = self._lost = False
        self.answered = False  # whether the store could be opened, or the first attempt failed
        # Set if the ledger has a record that cannot be translated, if the store holds another sweep with this one's id, or if it
        # refused at the start; the thread has then ended.
        self.failure: Damaged | EnvironmentUnfit | None = None
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    @property
    def behind(self) -> int:
        """The number of records not yet delivered. Until the store is first reached, all records are counted."""
        return len(self._records) - self._delivered

    def start(self) -> None:
        self._thread.start()

    def notify(self) -> None:
        """Say that the ledger has new records. Returns at once."""
        with self._news:
            self._news.notify_all()

    def await_answer(self, timeout: float) -> None:
        """Wait, at most `timeout` seconds, until the store was opened or the first attempt failed. Raises `failure` if set."""
        with self._news:
            self._news.wait_for(lambda: self.answered or self.failure is not None, timeout)
        if self.failure:
            raise self.failure

    def drain(self, timeout: float) -> bool:
        """Wait until all records are delivered, or none was delivered for `timeout` seconds. Return whether all are."""
        with self._news:
            self._awaited = True
            self._news.notify_all()
            while self.behind and not self.failure and self._gets_on(self.behind, timeout):
                pass
            self._awaited = False
            return self.behind == 0

    def _gets_on(self, behind: int, timeout: float) -> bool:
        """Wait until fewer than `behind` records are left. Return False if that takes longer than `timeout` seconds."""
        return self._news.wait_for(lambda: self.behind < behind or self.failure is not None, timeout)

    def close(self) -> None:
        """End the thread. Undelivered records stay in the ledger, and the next driver of this sweep delivers them."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(CLOSING)
        if self._system_metrics:
            self._system_metrics.close()

    def _run(self) -> None:
        with environment():
            self._keep_in_step()

    def _keep_in_step(self) -> None:
        link: Link | None = None
        pause = 0.0
        while self._wait(pause):
            try:
                with self._told_if_hanging():
                    link = link or self._connect()
                while self.behind and not self._closed:
                    with self._told_if_hanging():
                        self._deliver(link)
                if self._system_metrics:
                    self._system_metrics.ensure(link.sweep_run)
                self._tell_found()
                pause = PERIOD
            except (Damaged, EnvironmentUnfit) as error:  # a retry would fail as well
                self._give_up(error)
                return
            except Exception as error:  # the sweep goes on, whatever error the store or its client has
                if not self.answered and (reason := refusal(error, self._uri)):
                    self._give_up(StoreRefused(f"the tracking store {redact(self._uri)} cannot be used: {reason}"))
                    return
                link = None
                pause = min(max(2 * pause, RETRY), RETRY_LIMIT)
                self._tell_lost(error)
                self._note_answer()

    def _wait(self, pause: float) -> bool:
        """Wait for `pause` seconds, and then until there is a record to deliver. Return False if the tracker was closed."""
        start = time.monotonic()
        with self._news:
            while not self._closed:
                left = start + (min(pause, AWAITED) if self._awaited else pause) - time.monotonic()
                if left <= 0 and self.behind:
                    return True
                self._news.wait(left if left > 0 else None)
        return False

    def _connect(self) -> Link:
        link = Link(self._uri, self._artifacts, self._folder, self._records)
        self._note_answer()
        self._note(link.position)
        return link

    def _deliver(self, link: Link) -> None:
        link.deliver(self._records[link.position : link.position + BATCH])
        self._note(link.position)

    def _note(self, position: int) -> None:
        with self._news:
            self._delivered = position
            self._news.notify_all()

    def _note_answer(self) -> None:
        with self._news:
            self.answered = True
            self._news.notify_all()

    def _give_up(self, error: Damaged | EnvironmentUnfit) -> None:
        with self._news:
            self.failure = error
            self._closed = True
            self._news.notify_all()

    def _tell_lost(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            reason = clean_line(f"{type(error).__name__}: {error}")[:500]
            log.warning(
                "tracking store %s unreachable, %d records wait in the ledger (%s)",
                redact(self._uri),
                self.behind,
                reason,
            )

    @contextmanager
    def _told_if_hanging(self) -> Iterator[None]:
        """Warn if the block takes longer than `HANGING` seconds. The sweep goes on; this thread waits for the store."""
        timer = threading.Timer(HANGING, self._tell_hanging)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell_hanging(self) -> None:
        self._lost = True
        text = "tracking store %s has not answered for %.0f s, %d records wait in the ledger; the sweep goes on"
        log.warning(text, redact(self._uri), HANGING, self.behind)

    def _tell_found(self) -> None:
        if self._lost:
            self._lost = False
            log.warning("tracking store %s reachable again", redact(self._uri))


def deliver_all(uri: str, artifacts: Path, folder: Path, records: Sequence[LedgerRecord]) -> None:
    """Write all records to a store in this thread. Raises whatever error the store has."""
    with environment():
        link = Link(uri, artifacts, folder, records)
        while link.position < len(records):
            link.deliver(records[link.position : link.position + BATCH])


def open_store(uri: str, artifacts: Path | None, folder: Path, records: Sequence[LedgerRecord]) -> Store:
    """Open the store for the sweep that these records are of. Raises Damaged and EnvironmentUnfit as `Link` does."""
    opening = records[0].event
    if not isinstance(opening, SweepOpened):
        raise Damaged(advice(folder / LEDGER, 1, "is not the opening of a sweep"))
    manifest = opening.manifest
    lacking = [name for name in ("space", "sweep") if name not in manifest]
    if lacking:
        fault = f"opens the sweep with a manifest that lacks {', '.join(lacking)}"
        raise Damaged(advice(folder / LEDGER, 1, fault))
    # A sweep stays in the experiment in which it began; earlier versions named it after the space.
    experiment = manifest.get("experiment") or manifest["space"]
    return Store(uri, artifacts, folder, experiment, manifest["sweep"], began=round(records[0].time * 1000))


class Link:
    """A connection to the store, and the runs as they are after the first `position` records.

    Raises Damaged if the first of `records` is not a complete opening of a sweep, or one cannot be applied; EnvironmentUnfit if
    the store holds another sweep with this one's id.
    """

    def __init__(self, uri: str, artifacts: Path | None, folder: Path, records: Sequence[LedgerRecord]):
        self._folder = folder
        self._store = open_store(uri, artifacts, folder, records)
        self.position = self._store.position if self._store.position <= len(records) else 0
        self._runs = self._replay(records)
        missing = [key for key in self._runs.born if key not in self._store.known]
        if missing and self.position:
            log.info("%d runs are missing in the tracking store, which is filled again", len(missing))
            self.position = 0
            self._runs = RunProjection()

    @property
    def sweep_run(self) -> str:
        """The MLflow id of the sweep's run, once its opening was delivered."""
        return self._store.known[Key("sweep")].run_id

    def deliver(self, records: Sequence[LedgerRecord]) -> None:
        """Write `records`, which must be the ones after the first `position`, to the store."""
        self._apply(self._runs, records)
        self._store.write(self._runs.take(), self.position + len(records))
        self.position += len(records)

    def _replay(self, records: Sequence[LedgerRecord]) -> RunProjection:
        """Return the runs after the delivered records, with no pending edits, since these are in the store already."""
        runs = RunProjection()
        for begin in range(0, self.position, BATCH):
            self._apply(runs, records[begin : min(begin + BATCH, self.position)])
            runs.take()
        return runs

    def _apply(self, runs: RunProjection, records: Sequence[LedgerRecord]) -> None:
        """Apply records to the runs. Raises Damaged for a record that contradicts earlier ones or lacks something."""
        for record in records:
            try:
                runs.apply(record)
            except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
                fault = f"cannot be entered after those before it ({type(error).__name__}: {error})"
                raise Damaged(advice(self._folder / LEDGER, record.seq, fault)) from None
