"""The end of a driver's work: the last records go to the tracking store, and the report is made.

Where the store does not take the records, the report is made from the ledger, by way of an MLflow store in the sweep's folder.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import exit_codes
from orchestrator.execution.cluster import environment
from orchestrator.execution.drain import Drain, shielded
from orchestrator.ledger import Ledger
from orchestrator.lost_outputs import drop_lost_outputs
from orchestrator.tracking.publication import publish
from orchestrator.tracking.tracker import Tracker, deliver_all
from search_spaces.redaction import clean_line, redact
from search_spaces.tracking_uri import ARTIFACTS, DATABASE, sqlite_uri

log = logging.getLogger(__name__)

# Seconds without a delivery after which the end of a sweep does not wait for the tracking store any longer: usually, and after a
# signal, which is usually followed by SIGKILL after 30 s.
PATIENCE, PATIENCE_AFTER_SIGNAL = 120.0, 5.0
# Seconds that the first attempt may take in any case: a database that is being made is not away.
FIRST_ATTEMPT = 30.0


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Delivers the records of the sweep with the id `sweep` and makes its report in the folder `report`.

    The report's files have the permissions that `umask` gives.
    """

    tracker: Tracker
    uri: str
    sweep: str
    ledger: Ledger
    report: Path
    drain: Drain
    umask: int

    def finish(self) -> int:
        """Deliver the records and make the report. Return COMPLETE, ENVIRONMENT if the store or the report failed, or
        DAMAGED_STATE if the report found damaged results.

        Raises the tracker's failure: Damaged for a record that cannot be delivered, StoreRefused if the store refuses.
        """
        delivered = self._deliver()
        self.tracker.close()
        if self.tracker.failure:
            raise self.tracker.failure
        uri = self.uri if delivered else self._local_store()
        with tempfile.TemporaryDirectory() as scratch:
            file_list = Path(scratch) / "files"
            reported = self._make_report(uri, file_list) if uri else exit_codes.ENVIRONMENT
            if delivered and reported == exit_codes.COMPLETE:
                return self._publish(file_list.read_text(encoding="utf-8").splitlines())
        return reported if delivered else exit_codes.ENVIRONMENT

    def _publish(self, files: Sequence[str]) -> int:
        """Add the report, which consists of these files, to MLflow. Return COMPLETE, or ENVIRONMENT if that failed."""
        folder, records = self.ledger.folder, self.ledger.records
        try:
            page = publish(self.uri, folder.parent / ARTIFACTS, folder, records, self.report, files)
        except Exception as error:  # whatever error MLflow has; the report is written
            log.error(
                "the report is not in the tracking store (%s); the same command adds it",
                clean_line(f"{type(error).__name__}: {error}")[:500],
            )
            return exit_codes.ENVIRONMENT
        if page:
            log.info("MLflow: %s", page)
        return exit_codes.COMPLETE

    def _deliver(self) -> bool:
        """Wait until the store has all records, or has not taken any for too long. Return whether it has all."""
        behind, since = self.tracker.behind, time.monotonic()
        while not self.tracker.drain(1.0):
            if self.tracker.behind < behind:
                behind, since = self.tracker.behind, time.monotonic()
            patience = (
                PATIENCE if not self.drain.signal else PATIENCE_AFTER_SIGNAL if self.tracker.answered else FIRST_ATTEMPT
            )
            if self.tracker.failure or time.monotonic() - since > patience:
                return False
        return True

    def _local_store(self) -> str:
        """Write all records to a store in the sweep's folder and return its address, "" if that fails."""
        folder = self.ledger.folder
        log.error(
            "the tracking store %s did not receive all records; they are in the ledger, from which the report is made, and the "
            "same command sends them",
            redact(self.uri),
        )
        try:
            uri = sqlite_uri(folder / DATABASE)
            deliver_all(uri, folder / ARTIFACTS, folder, self.ledger.records)
        except Exception as error:  # whatever error MLflow has; the ledger has everything
            log.error("no report: %s could not be written (%s)", folder / DATABASE, clean_line(error))
            return ""
        return uri

    def _make_report(self, uri: str, file_list: Path) -> int:
        """Run `python -m reports`, which writes the names of its files to `file_list`.

        Return COMPLETE, DAMAGED_STATE if it found damaged results, or ENVIRONMENT.
        """
        words = ["--tracking-uri", uri, "--sweep", self.sweep, "--out", str(self.report)]
        words += ["--file-list", str(file_list)]
        drop_lost_outputs()  # the report prints where it is
        with shielded():
            process = subprocess.Popen([sys.executable, "-m", "reports", *words], env=environment(), umask=self.umask)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        if code:
            log.error("the report could not be written (exit code %d)", code)
            return exit_codes.DAMAGED_STATE if code == exit_codes.DAMAGED_STATE else exit_codes.ENVIRONMENT
        log.info("report: %s", self.report / "summary.md")
        return exit_codes.COMPLETE
