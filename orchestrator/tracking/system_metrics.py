"""Records the use of this machine (CPU, memory, disk, network, GPUs) on the sweep's run, by MLflow's own monitor."""

from __future__ import annotations

import threading
from typing import Any

from orchestrator.tracking.mlflow_store import machine_monitor

# Seconds for which `close` waits for the last values.
CLOSING = 5.0


class SystemMetrics:
    """MLflow's monitor of this machine, in a thread of its own, which ends when the store is lost or the run is closed."""

    def __init__(self, uri: str):
        self._uri = uri
        self._monitor: Any = None
        self._threads: set[threading.Thread] = set()

    def ensure(self, run_id: str) -> None:
        """Start the monitor unless it runs. MLflow names the metrics "system/...", which the UI shows on a page of their own."""
        if any(thread.is_alive() for thread in self._threads):
            return
        before = set(threading.enumerate())
        self._monitor = machine_monitor(self._uri, run_id)
        self._monitor.start()
        self._threads = {thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"} - before

    def close(self) -> None:
        """Store the last values and end the monitor. Does not wait long for a store that is away."""
        if self._monitor:
            closing = threading.Thread(target=self._monitor.finish, daemon=True)
            closing.start()
            closing.join(CLOSING)
