"""Checkpoints of trials, written after every epoch: one folder per trial, which each write replaces atomically.

Tensors are in a safetensors file, everything else in a JSON file with the tensors' checksum. Reading executes no code. Files
are renamed into place but not synced with fsync: if the process is killed, nothing is lost; after a power cut the checkpoint
may be damaged, which the checksum detects, and the trial starts again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from search_spaces.records import Ablation, Progress, TestResult, Trial

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint: the state of one trial after an epoch."""

    # Completed epochs.
    epoch: int
    done: bool
    # One entry per completed epoch.
    progress: Sequence[Progress]
    # The tensors that `Engine.state` returns; if `done`, only "best" (parameters of the best epoch) and "keep" (pruning mask).
    tensors: dict[str, Tensor]
    # Result of a finished final on the test split.
    test: TestResult | None = None
    # Ablation of a finished final of an ablated row.
    ablation: Ablation | None = None


def write(folder: Path, trial: Trial, checkpoint: Checkpoint) -> None:
    """Replace the trial's checkpoint in `folder`. If the process is killed meanwhile, the old or the new one is complete."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(checkpoint.tensors, fresh / "state.safetensors")
    record = {
        "trial": trial.id,
        "epoch": checkpoint.epoch,
        "done": checkpoint.done,
        "progress": [p.to_json() for p in checkpoint.progress],
        "test": checkpoint.test.to_json() if checkpoint.test else None,
        "ablation": checkpoint.ablation.to_json() if checkpoint.ablation else None,
        "checksum": _checksum(fresh / "state.safetensors"),
    }
    (fresh / "state.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def read(folder: Path, trial: Trial) -> Checkpoint | None:
    """Return the trial's last checkpoint, or None if there is none or, with a warning, if it is damaged or another trial's."""
    # If the process was killed between the two renames in `write`, only the folder ".old" exists, and it is complete.
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if not candidate.exists():
            continue
        try:
            return _read(candidate, trial)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is not usable (%s); the trial starts from an earlier state", candidate, error)
    return None


def _read(folder: Path, trial: Trial) -> Checkpoint:
    record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if record["trial"] != trial.id:
        raise ValueError(f"belongs to trial {record['trial']}")
    if record["checksum"] != _checksum(folder / "state.safetensors"):
        raise ValueError("checksum differs")
    return Checkpoint(
        epoch=record["epoch"],
        done=record["done"],
        progress=[Progress.from_json(p) for p in record["progress"]],
        tensors=load_file(folder / "state.safetensors"),
        test=TestResult.from_json(record["test"]) if record["test"] else None,
        ablation=Ablation.from_json(record["ablation"]) if record.get("ablation") else None,
    )


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
