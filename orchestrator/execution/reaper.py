"""A process that waits for the end of the driver and then cleans up after it, even if the driver was killed.

After `kill -9`, Ray's agents would run on for minutes and its session folder would remain. Every sweep has a temporary folder of
its own, which holds the session folder if the sweep started Ray. The driver holds the other end of a pipe; when the pipe closes,
the reaper kills the processes that still use the temporary folder, and removes it. Uses the standard library only; `cluster.py`
starts it as `python -m orchestrator.execution.reaper FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

# Seconds before processes are killed. None of them has anything to finish: a trial goes on from its last whole checkpoint.
GRACE = 0.3


def processes_of(folder: Path, spared: int) -> list[int]:
    """Return the ids of processes that have the folder in their environment or a file in it open.

    This process and the process id `spared` are left out.
    """
    processes = {int(entry.name): entry for entry in Path("/proc").glob("[0-9]*")}
    return [pid for pid, entry in processes.items() if pid not in (os.getpid(), spared) and _belongs(entry, folder)]


def _belongs(process: Path, folder: Path) -> bool:
    # Ray's agents overwrite their environment with their title, so they are found by their open log files.
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
    """Wait up to `GRACE` seconds for the processes that use the folder to end, kill the rest, and remove the folder.

    The process `driver` is spared: at a normal end it closes the pipe and waits for the reaper.
    """
    deadline = time.monotonic() + GRACE
    while processes_of(folder, driver) and time.monotonic() < deadline:
        time.sleep(0.05)
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
