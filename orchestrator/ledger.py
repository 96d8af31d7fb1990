"""The append-only record of one sweep: `ledger.jsonl` in the sweep's folder, from which everything else can be rebuilt.

Each event is one line, `<crc32 of the JSON, 8 hex digits> <JSON>`. "seq" numbers the records from 1 without gaps; "time" (seconds
since 1970) is for information only. The ledger is damaged if a line before the last one is broken, or if a complete line does not
hold a known event. Uses the standard library only.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from orchestrator.stored_records import StoredRecords
from search_spaces.events import Event, LedgerRecord, event_from_json, event_to_json
from search_spaces.history import SweepHistory

log = logging.getLogger(__name__)

LEDGER, LOCK = "ledger.jsonl", "lock"
FRAME = 10  # bytes of a line beside its JSON: checksum, space and line feed


class Damaged(Exception):
    """A ledger is wrong from some line on, and the user has to decide what to do with it. Exit code 5."""


class Held(Exception):
    """Another driver runs this sweep and has its lock. Exit code 6."""


class Ledger:
    """The ledger of a sweep, opened and locked by this process. Make one with `Ledger.open`.

    `records` are the durable records, which any thread may read from the file, and `history` is the state that follows from them,
    which only the thread that appends may use. `append` may be called from any thread.
    """

    def __init__(self, folder: Path, lock: int, file: int, content: Content, clock: Callable[[], float]):
        self.folder, self.history, self._starts = folder, content.history, content.starts
        self.records = stored_records(folder, content.starts)
        self._lock, self._file, self._clock = lock, file, clock
        self._size = os.fstat(file).st_size
        self._appending = threading.Lock()
        self._refused = ""

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float] = time.time) -> Ledger:
        """Lock the sweep, verify all records, and move an incompletely written last line to `ledger.jsonl.torn`.

        The kernel releases the lock at the latest when the process ends. Raises Held if another driver has it, Damaged if a
        record is missing, is broken before the last line, or does not hold a known event. `clock` gives seconds since 1970.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path, lock = folder / LEDGER, _take(folder)
        with ExitStack() as undo:
            undo.callback(os.close, lock)
            begun = _holder(folder / LOCK).get("begun", False)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            undo.callback(os.close, file)
            _sync_folder(folder)
            content = _repair(path, file)
            if begun and not content.starts:
                raise Damaged(
                    f"{path} is missing or empty, but this sweep has begun; put a backup of it back, or start anew "
                    "in an empty folder"
                )
            _sign(lock, clock(), begun=bool(content.starts))
            undo.pop_all()
        return cls(folder, lock, file, content, clock)

    def append(self, *events: Event) -> list[LedgerRecord]:
        """Write the events with one write and one fsync, and return their records as they would be read from the file.

        Raises ValueError or TypeError for values that JSON cannot represent. After a failed write or fsync, the file is cut back
        to the records that were durable before, and this call and all later ones raise OSError.
        """
        if not events:
            return []
        with self._appending:
            if self._refused:
                raise OSError(f"{self.folder / LEDGER}: nothing is written after an earlier failure: {self._refused}")
            now, seq = self._clock(), len(self.records)
            texts = [_text({**event_to_json(event), "seq": seq + i, "time": now}) for i, event in enumerate(events, 1)]
            stored = [_parsed(json.loads(text)) for text in texts]
            lines = [_line(text) for text in texts]
            starts = accumulate(map(len, lines[:-1]), initial=self._size)
            self._write(b"".join(lines))
            self._starts.extend(starts)
            for record in stored:
                self.history.apply(record)
            if seq == 0:
                _sign(self._lock, now, begun=True)
            return stored

    def close(self) -> None:
        """Release the sweep's lock and close the file. A later `append` raises OSError."""
        with self._appending:
            if self._lock >= 0:
                self._refused = self._refused or "closed"
                os.close(self._file)
                os.close(self._lock)
                self._lock = -1

    def _write(self, data: bytes) -> None:
        try:
            _write_all(self._file, data)
            os.fsync(self._file)
        except BaseException as error:
            # The kernel may drop pages after a failed fsync, and a second fsync would then report success.
            self._refused = str(error) if isinstance(error, OSError) else ""
            self._cut_back()
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self.folder / LEDGER)) from None
            raise
        self._size += len(data)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError as error:
            self._refused = self._refused or str(error)


def read(folder: Path) -> list[LedgerRecord]:
    """Return the records of a sweep's ledger, all in memory; [] if there is no ledger."""
    return list(stream(folder))


def stream(folder: Path) -> Iterator[LedgerRecord]:
    """Return the records of a sweep's ledger one by one. Takes no lock, since a driver may be writing it.

    An incomplete last line is ignored. Raises Damaged if an earlier line is broken or a complete one does not hold an event.
    """
    return _entries(folder / LEDGER, Content())


def read_history(folder: Path) -> SweepHistory:
    """Return the history of a sweep from its ledger, read as by `stream`; an empty history if there is no ledger."""
    return _content(folder / LEDGER).history


def stored_records(folder: Path, starts: array[int]) -> StoredRecords:
    """Return the records of a ledger that begin at these bytes of its file. To read one that has changed raises Damaged."""
    path = folder / LEDGER

    def parse(line: bytes) -> LedgerRecord:
        try:
            return _parsed(json.loads(_checked(line) or b""))
        except (AttributeError, KeyError, ValueError):
            raise Damaged(f"{path}: it was changed while it was used; put a backup of it back") from None

    return StoredRecords(path, starts, parse)


def good_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Return the number from 1, the first byte and the JSON of each line of a ledger file whose checksum is right.

    An incomplete last line is left out. Raises Damaged if an earlier line is broken.
    """
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _checked(line)
            if text is None:
                if line.endswith(b"\n") and file.read(1):
                    raise Damaged(_lost(path, number, "is broken"))
                return
            yield number, start, text
            start += len(line)


def parse_record(path: Path, number: int, text: bytes) -> LedgerRecord:
    """Return the record in line `number`. Raises Damaged if it has another number or is not a known event."""
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    found = record.get("seq") if isinstance(record, dict) else None
    if found != number:
        raise Damaged(_lost(path, number, f"has number {found}"))
    try:
        return _parsed(record)
    except ValueError as error:
        raise Damaged(advice(path, number, str(error))) from None


def write_atomic(path: Path, text: str) -> None:
    """Write the file durably and atomically: after a crash at any moment it holds either the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".tmp")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    _sync_folder(path.parent)


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _line(text: str) -> bytes:
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


@dataclass
class Content:
    """What was read of a ledger file: the history that follows from its records, and where each of them begins, in bytes.

    `good` is the number of bytes of complete records; any bytes after them are an incompletely written last line.
    """

    history: SweepHistory = field(default_factory=SweepHistory)
    starts: array[int] = field(default_factory=lambda: array("Q"))
    good: int = 0


def advice(path: Path, number: int, fault: str) -> str:
    """Return an error message: what is wrong (`fault`) with a complete record, and what the user can do."""
    return (
        f"{path}, record {number}: it {fault}. If a newer version of this program wrote it, continue with that version; "
        f"otherwise put a backup of the file back, or keep its first {number - 1} lines (`head -n {number - 1}`) and lose "
        "what came after them"
    )


def _content(path: Path) -> Content:
    found = Content()
    for _ in _entries(path, found):
        pass
    return found


def _entries(path: Path, found: Content) -> Iterator[LedgerRecord]:
    """Verify the lines of a ledger file, enter each into `found`, and return its record."""
    if not path.exists():
        return
    for number, start, text in good_lines(path):
        record = parse_record(path, number, text)
        try:
            found.history.apply(record)
        except ValueError as error:
            raise Damaged(advice(path, number, str(error))) from None
        found.starts.append(start)
        found.good = start + len(text) + FRAME
        yield record


def _parsed(record: dict[str, Any]) -> LedgerRecord:
    """Convert a JSON record to a LedgerRecord. Raises ValueError if its time is missing or it is not a known event."""
    seq, time = record.pop("seq"), record.pop("time", None)
    if not isinstance(time, int | float):
        raise ValueError("lacks its time")
    return LedgerRecord(seq=seq, time=time, event=event_from_json(record))


def _checked(line: bytes) -> bytes | None:
    """Return the JSON text of a line; None if the line is not complete or its checksum is wrong."""
    text = line[9:-1]
    good = line[-1:] == b"\n" and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(text)
    return text if good else None


def _lost(path: Path, line: int, fault: str) -> str:
    last = line - 1
    return (
        f"{path}, line {line}: the record {fault}; the last good one is number {last}. Put a backup of the file back, "
        f"or keep its first {last} lines (`head -n {last}`) and lose what came after them"
    )


def _repair(path: Path, file: int) -> Content:
    found, size = _content(path), os.fstat(file).st_size
    if found.good < size:
        log.warning(
            "%s: the last line was not written to its end; %d bytes go to %s.torn", path, size - found.good, path.name
        )
        with path.with_name(path.name + ".torn").open("ab") as torn:
            torn.write(os.pread(file, size - found.good, found.good))
            torn.flush()
            os.fsync(torn.fileno())
        os.ftruncate(file, found.good)
        os.fsync(file)
    return found


def _take(folder: Path) -> int:
    """Lock the sweep's lock file and return its descriptor, which child processes do not inherit. Raises Held."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise
        holder = _holder(folder / LOCK)
        try:
            since = datetime.fromtimestamp(holder["started"], UTC).isoformat(" ", "seconds")
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            since = "unknown"
        raise Held(f"{folder} is held by process {holder.get('pid', 'unknown')}, started {since}") from None
    return lock


def _holder(path: Path) -> dict[str, Any]:
    """Return what the last process that had the lock wrote into its file (see `_sign`); {} if it cannot be read."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _sign(lock: int, now: float, begun: bool) -> None:
    """Write process id, start time and `begun` into the lock file.

    `begun` says that the ledger has had records, so that an empty or missing ledger means that they were lost.
    """
    text = json.dumps({"pid": os.getpid(), "started": now, "begun": begun}).encode()
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
