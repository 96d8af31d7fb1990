"""Kills this process at a chosen step of its writing: a write, fsync, rename, removal, new file or folder, or SQL statement.

A write may be torn: only a prefix of it arrives, or of what was written since the last fsync. Steps count in one folder only.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Audit events whose first argument is a path or a descriptor that is about to change.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class WriteKills:
    """Counts the steps that this process takes in `folder`, and kills the process before or within the one that `at` names.

    `at` is a kind of step, "file" or "sql", and its number from 1. Only for a forked child: hooks of Python's auditing cannot be
    removed.
    """

    def __init__(self, folder: Path, at: tuple[str, int] | None, draw: random.Random):
        self._folder, self._at, self._draw = f"{folder}/", at, draw
        self._synced: dict[int, int] = {}  # bytes that an fsync has made durable, by inode
        self.num_steps: Counter[str] = Counter()

    def install(self) -> None:
        sys.addaudithook(self._audit)
        os.write = self._wrap_write(os.write)  # type: ignore[assignment]
        os.fsync = self._wrap_fsync(os.fsync)  # type: ignore[assignment]
        sqlite3.dbapi2.connect = self._wrap_connect(sqlite3.dbapi2.connect)  # type: ignore[assignment]

    def _audit(self, event: str, words: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = words
            if flags & WRITES and self._inside(path):
                if os.path.exists(path) and not flags & os.O_TRUNC:
                    found = os.stat(path)  # what earlier processes wrote was made durable by them
                    self._synced.setdefault(found.st_ino, found.st_size)
                self._step()
        elif event in CHANGES and self._inside(words[0]):
            self._step()

    def _inside(self, place: Any) -> bool:
        """Whether a path, or the file of a descriptor, lies in the folder."""
        if isinstance(place, int):
            place = os.readlink(f"/proc/self/fd/{place}")
        return isinstance(place, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(place)).startswith(
            self._folder
        )

    def _step(self, kind: str = "file", torn: Callable[[], object] = lambda: None) -> None:
        self.num_steps[kind] += 1
        if (kind, self.num_steps[kind]) == self._at:
            torn()
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrap_write(self, write: Callable[..., int]) -> Callable[..., int]:
        def torn_write(file: int, data: Any) -> int:
            if self._inside(file):
                self._step(torn=lambda: write(file, bytes(data)[: self._draw.randrange(len(data) + 1)]))
            return write(file, data)

        return torn_write

    def _wrap_fsync(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def torn_fsync(file: int) -> None:
            found = os.fstat(file)
            if self._inside(file) and not os.path.isdir(f"/proc/self/fd/{file}"):
                durable = min(self._synced.get(found.st_ino, 0), found.st_size)
                self._step(
                    torn=lambda: os.truncate(f"/proc/self/fd/{file}", self._draw.randint(durable, found.st_size))
                )
                self._synced[found.st_ino] = found.st_size
            fsync(file)

        return torn_fsync

    def _wrap_connect(self, connect: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
        def traced_connect(*words: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*words, **options)
            connection.set_trace_callback(lambda statement: self._step("sql"))
            return connection

        return traced_connect
