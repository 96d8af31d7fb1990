"""Checkpoints of one sweep in a folder that pyarrow opens: on this machine, on a shared disk, on S3 or on Google Cloud Storage.

    PLACE/SWEEP/mark                        the sweep's id, by which a node sees that it reaches the driver's place
    PLACE/SWEEP/TRIAL/NUMBER-RANDOM/        one write of a checkpoint: state.safetensors, and then state.json

Object storage renames nothing, so each write makes a folder with the next number. Before a checkpoint is used its checksums are
compared, so an upload that was cut off is never read: the write before it is. Loads neither torch nor Ray.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from search_spaces.redaction import clean_line
from trainables.worker.checkpoint_store import (
    RECORD,
    TENSORS,
    CheckpointSize,
    NotStored,
    read_size,
    replace_folder,
    verified_record,
)
from trainables.worker.worker_environment import WorkerEnvironmentError

log = logging.getLogger(__name__)

MARK = "mark"
BLOCK = 8 << 20  # bytes of a request to object storage
LONGEST_REASON = 300  # characters of an error; Google's are paragraphs
# Google's client tries for a quarter of an hour by default; that of S3 gives up after seconds.
GCS_RETRY_SECONDS = 20
# Seconds after a failure in which nothing is tried, since each attempt may block all trials of a device for seconds.
PAUSE_SECONDS = 30.0


class FileSystemStore:
    """The checkpoints of a sweep at `place`: an absolute path or an address that starts with file://, s3:// or gs://.

    Credentials are those that pyarrow finds on the machine: environment variables, files of the user, the role of the instance.
    Nothing is opened before the first call. Without `sweep` it is the place itself.
    """

    def __init__(self, place: str, sweep: str = "", clock: Callable[[], float] = time.monotonic):
        self._place, self._sweep, self._clock = place, sweep, clock
        self._paused_until, self._reason = -math.inf, ""
        self._deletions = ThreadPoolExecutor(1, "deletions")

    def fetch(self, trial_id: str, folder: Path) -> None:
        with self._told("read"):
            for write in reversed(self._folders(trial_id)):
                try:
                    replace_folder(folder, partial(self._download, f"{trial_id}/{write}"))
                    return
                except (ValueError, FileNotFoundError) as error:
                    log.warning("checkpoint %s/%s is not whole (%s); the one before is tried", trial_id, write, error)

    def store(self, trial_id: str, folder: Path) -> None:
        with self._told("written"):
            former = self._folders(trial_id)
            last = int(former[-1].partition("-")[0]) if former else 0
            target = f"{trial_id}/{last + 1:06}-{uuid.uuid4().hex[:8]}"
            for name in (TENSORS, RECORD):
                self._upload(folder / name, f"{target}/{name}")
            for write in former:
                self._delete(f"{trial_id}/{write}")

    def trial_ids(self) -> list[str]:
        with self._told("read"):
            return self._folders("")

    def size(self, trial_id: str) -> CheckpointSize | None:
        with self._told("read"):
            try:
                return self._size(trial_id)
            except FileNotFoundError:  # a write that was cut off, or that is just being deleted
                return None
            except ValueError as error:
                damage = error
        raise damage

    def _size(self, trial_id: str) -> CheckpointSize | None:
        for write in self._folders(trial_id)[-1:]:
            if json.loads(self._read(f"{trial_id}/{write}/{RECORD}"))["done"]:
                with self._system.open_input_file(self._path(f"{trial_id}/{write}/{TENSORS}")) as file:
                    return read_size(file, file.size())
        return None

    def delete(self, trial_id: str) -> None:
        """Delete a trial's checkpoint in the background. If that fails, it stays and nothing more is said."""
        self._deletions.submit(self._delete_told, trial_id)

    def _delete_told(self, trial_id: str) -> None:
        with suppress(NotStored), self._told("deleted"):
            self._delete(trial_id)

    def discard_unfinished(self) -> None:
        """Do nothing: what a cut-off write left goes with the trial's next write, or with its checkpoint."""

    def set_mark(self) -> None:
        """Let other machines see that they reach this place. Raises NotStored."""
        with self._told("written"):
            self._write(MARK, self._sweep)

    def check(self) -> None:
        """Raise WorkerEnvironmentError unless this machine writes, reads and deletes here, and the driver's mark is here."""
        name = f"probe-{uuid.uuid4().hex}"
        try:
            with self._told("used"):
                if self._sweep and self._read(MARK) != self._sweep:
                    raise OSError("it is not the driver's")
                self._write(name, name)
                if self._read(name) != name:
                    raise OSError("it returns something else than was written")
                self._system.delete_file(self._path(name))
        except NotStored as error:
            hint = "it must be the same place on every node, with permission to read, write and delete"
            raise WorkerEnvironmentError(f"--checkpoints {error}; {hint}") from None

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Raise NotStored, with the place and the reason, for whatever pyarrow raises."""
        if self._clock() < self._paused_until:
            raise NotStored(self._reason)
        try:
            yield
        except Exception as error:  # OSError, and of pyarrow's own kinds, which differ between its file systems
            self._paused_until = self._clock() + PAUSE_SECONDS
            self._reason = clean_line(f"{self._place}: cannot be {action} ({str(error)[:LONGEST_REASON]})")
            raise NotStored(self._reason) from None

    @property
    def _system(self) -> Any:
        return _open(self._place)[0]

    def _path(self, name: str) -> str:
        return "/".join(filter(None, (_open(self._place)[1].rstrip("/"), self._sweep, name)))

    def _folders(self, name: str) -> list[str]:
        """Return the names of the folders in a folder, sorted: the trials of the sweep, or the writes of a trial."""
        from pyarrow.fs import FileSelector, FileType

        found = self._system.get_file_info(FileSelector(self._path(name), allow_not_found=True))
        return sorted(each.base_name for each in found if each.type == FileType.Directory)

    def _download(self, name: str, fresh: Path) -> None:
        for file in (TENSORS, RECORD):
            with (
                self._system.open_input_stream(self._path(f"{name}/{file}")) as source,
                (fresh / file).open("wb") as target,
            ):
                shutil.copyfileobj(source, target, BLOCK)
        verified_record(fresh)

    def _upload(self, source: Path, name: str) -> None:
        with source.open("rb") as file, self._open_output(name) as target:
            shutil.copyfileobj(file, target, BLOCK)
        # pyarrow keeps what was written before an error as if it were all.
        if self._system.get_file_info(self._path(name)).size != source.stat().st_size:
            raise OSError(f"{name} was not written whole")

    def _write(self, name: str, text: str) -> None:
        with self._open_output(name) as target:
            target.write(text.encode())

    def _read(self, name: str) -> str:
        with self._system.open_input_stream(self._path(name)) as source:
            return str(source.read().decode())

    def _open_output(self, name: str) -> Any:
        path = self._path(name)
        try:
            return self._system.open_output_stream(path)
        except FileNotFoundError:  # object storage needs no folders
            self._system.create_dir(path.rpartition("/")[0], recursive=True)
            return self._system.open_output_stream(path)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._system.delete_dir(self._path(name))


@lru_cache(maxsize=8)
def open_store(place: str, sweep: str) -> FileSystemStore:
    """Return the store of a sweep at a place: in one process always the same."""
    return FileSystemStore(place, sweep)


@lru_cache(maxsize=8)
def _open(place: str) -> tuple[Any, str]:
    """Return pyarrow's file system of a place, and the path of the place in it."""
    from pyarrow.fs import FileSystem

    if place.startswith("gs://") and "retry_limit_seconds" not in place:
        place += f"{'&' if '?' in place else '?'}retry_limit_seconds={GCS_RETRY_SECONDS}"
    system, path = FileSystem.from_uri(place)
    return system, path
