"""Folders of checkpoints as files, and where checkpoints are kept if a sweep's nodes share no folder. Loads no torch.

In that case a device worker writes checkpoints to a folder of its own node, and stores each one before the epoch is reported, so
that the trial can go on from it on any other node.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol


class CheckpointStore(Protocol):
    def fetch(self, trial_id: str, folder: Path) -> None:
        """Replace `folder` by the trial's last checkpoint, if it has one."""

    def store(self, trial_id: str, folder: Path) -> None:
        """Keep the files in `folder` as the trial's last checkpoint."""


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
