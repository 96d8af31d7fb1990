"""Cleans up after a driver that cannot do it itself: a process of its own that waits for the driver's end.

After a `kill -9` Ray's agents live on for minutes and its session folder for ever. The reaper holds the other end of a
pipe; when the pipe closes it kills what still belongs to this sweep's private folder, and removes the folder. Standard
library only; started by `cluster.py` as `python -m orchestrator.execution.reaper FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

# Ray's own processes notice the end by themselves in most cases; this is how long they are given, in seconds.
GRACE = 3.0


def processes_of(folder: Path, spared: int) -> list[int]:
    """Return the ids of processes that name the folder in their environment or hold a file in it open, but ours and `spared`."""
    processes = {int(entry.name): entry for entry in Path("/proc").glob("[0-9]*")}
    return [pid for pid, entry in processes.items() if pid not in (os.getpid(), spared) and _belongs(entry, folder)]


def _belongs(process: Path, folder: Path) -> bool:
    # Ray's agents write their title over their environment; their log files give them away.
    with contextlib.suppress(OSError):
        if os.fsencode(folder) in (process / "environ").read_bytes():
            return True
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith(f"{folder}/"):
                    return True
    return False


def clean(folder: Path, driver: int) -> None:
    """Kill what belongs to the folder, but not the driver, which may have ended in good order; then remove the folder."""
    deadline = time.monotonic() + GRACE
    while processes_of(folder, driver) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in processes_of(folder, driver):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    folder, driver = Path(sys.argv[1]), os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clean(folder, driver)


if __name__ == "__main__":
    main()
