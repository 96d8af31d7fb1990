"""Folders of checkpoints as files, and where checkpoints are kept if not in the sweep's folder. Loads no torch.

In that case a device worker writes checkpoints to a folder of its own node, and stores each one before the epoch is reported, so
that the trial can go on from it on any other node. `MailboxLink` stores them with the driver, `FileSystemStore` at --checkpoints.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

# The files of a checkpoint.
TENSORS, RECORD = "state.safetensors", "state.json"
# (bytes of the file of tensors, values in it)
CheckpointSize = tuple[int, int]


class NotStored(Exception):
    """The place at which checkpoints are kept cannot be used at the moment. Trials can go on without it."""


class CheckpointStore(Protocol):
    def fetch(self, trial_id: str, folder: Path) -> None:
        """Replace `folder` by the trial's last checkpoint, if it has one. May raise NotStored, as `store` may."""

    def store(self, trial_id: str, folder: Path) -> None:
        """Keep the files in `folder` as the trial's last checkpoint."""


class KeptCheckpoints(Protocol):
    """The checkpoints of a sweep as the driver sees them. Each method may raise NotStored."""

    def trial_ids(self) -> list[str]:
        """Return the ids of the trials of which there is anything."""

    def size(self, trial_id: str) -> CheckpointSize | None:
        """Return the size of a finished trial's checkpoint; None without one. Raises ValueError if it cannot be read."""

    def delete(self, trial_id: str) -> None: ...

    def discard_unfinished(self) -> None:
        """Delete what writes left that were cut off."""


class CheckpointFolder:
    """The checkpoints in the sweep's own folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    def trial_ids(self) -> list[str]:
        return sorted({path.stem for path in self._folder.iterdir()}) if self._folder.is_dir() else []

    def size(self, trial_id: str) -> CheckpointSize | None:
        path = self._folder / trial_id / TENSORS
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return read_size(file, path.stat().st_size)

    def delete(self, trial_id: str) -> None:
        for ending in ("", ".new", ".old"):
            shutil.rmtree(self._folder / (trial_id + ending), ignore_errors=True)

    def discard_unfinished(self) -> None:
        for path in self._folder.glob("*.new"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob("*.old"):
            if (self._folder / path.stem).is_dir():  # else it is the last complete one (`replace_folder`)
                shutil.rmtree(path, ignore_errors=True)


def read_size(file: Any, length: int) -> CheckpointSize:
    """Return the size of a file of tensors, open for reading bytes and of that length. Raises ValueError if it is damaged.

    Pruned weights are stored as zeros and counted. For a finished trial the values are the parameters of its best epoch.
    """
    header = int.from_bytes(file.read(8), "little")
    if not 0 < header <= length - 8:
        raise ValueError("its header is damaged")
    tensors = [each for name, each in json.loads(file.read(header)).items() if name != "__metadata__"]
    if 8 + header + max((each["data_offsets"][1] for each in tensors), default=0) != length:
        raise ValueError("its length is not that of its tensors")
    return length, sum(math.prod(each["shape"]) for each in tensors)


def verified_record(folder: Path) -> dict[str, Any]:
    """Return the record of a checkpoint whose files have their checksums. Raises ValueError or OSError for any other."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    # Checkpoints of earlier versions have no checksum of the record.
    expected = record.pop("record_checksum", None)
    if expected is not None and expected != record_checksum(record):
        raise ValueError(f"the checksum of {RECORD} differs")
    if record["checksum"] != file_checksum(folder / TENSORS):
        raise ValueError(f"the checksum of {TENSORS} differs")
    return dict(record)


def record_checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def file_checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of a checkpoint's files by name; {} if there is none."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace a folder by one with these files. If the process is killed meanwhile, the old or the new one is complete.

    Raises ValueError for a name that is no plain name of a file.
    """
    wrong = next((name for name in files if name != Path(name).name or name in ("", ".", "..")), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no name of a file of a checkpoint")

    def fill(fresh: Path) -> None:
        for name, content in files.items():
            (fresh / name).write_bytes(content)

    replace_folder(folder, fill)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Replace a folder by a new one, whose files `fill` writes. If the process is killed, the old or the new one is complete."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    _remove(fresh)
    fresh.mkdir(parents=True)
    fill(fresh)
    if folder.exists():  # else ".old" may be the only complete one, after a kill between the renames
        _remove(old)
        os.rename(folder, old)
    os.rename(fresh, folder)
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a checkpoint's folder, or a file in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
