"""Checkpoints of trials, written after every epoch: one folder per trial, which each write replaces atomically.

Tensors are in a safetensors file, everything else in a JSON file with the tensors' checksum. Reading executes no code. Files
are renamed into place but not synced with fsync: if the process is killed, nothing is lost; after a power cut the checkpoint
may be damaged, which the checksums detect, and the trial starts again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from search_spaces.records import Ablation, Progress, TestResult, Trial
from trainables.worker.checkpoint_store import (
    RECORD,
    TENSORS,
    file_checksum,
    record_checksum,
    replace_folder,
    verified_record,
)
from trainables.worker.worker_environment import WorkerEnvironmentError

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
    """Replace the trial's checkpoint in `folder`. If the process is killed meanwhile, the old or the new one is complete.

    Raises WorkerEnvironmentError if it cannot be written.
    """
    try:
        replace_folder(folder, lambda fresh: _fill(fresh, trial, checkpoint))
    except (OSError, SafetensorError) as error:
        raise WorkerEnvironmentError(f"checkpoint {folder} cannot be written ({error})") from None


def _fill(fresh: Path, trial: Trial, checkpoint: Checkpoint) -> None:
    save_file(checkpoint.tensors, fresh / TENSORS)
    record = {
        "trial": trial.id,
        "epoch": checkpoint.epoch,
        "done": checkpoint.done,
        "progress": [p.to_json() for p in checkpoint.progress],
        "test": checkpoint.test.to_json() if checkpoint.test else None,
        "ablation": checkpoint.ablation.to_json() if checkpoint.ablation else None,
        "checksum": file_checksum(fresh / TENSORS),
    }
    (fresh / RECORD).write_text(json.dumps({**record, "record_checksum": record_checksum(record)}), "utf-8")


def read(folder: Path, trial: Trial) -> Checkpoint | None:
    """Return the trial's last checkpoint, or None if there is none or, with a warning, if it is damaged or another trial's."""
    # If the process was killed between the two renames in `replace_folder`, only the folder ".old" exists, and it is complete.
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if not candidate.exists():
            continue
        try:
            return _read(candidate, trial)
        except Exception as error:  # damaged files raise errors of many types, also of the libraries that read them
            log.warning("checkpoint %s is not usable (%s); the trial starts from an earlier state", candidate, error)
    return None


def _read(folder: Path, trial: Trial) -> Checkpoint:
    record = verified_record(folder)
    if record["trial"] != trial.id:
        raise ValueError(f"belongs to trial {record['trial']}")
    progress = [Progress.from_json(p) for p in record["progress"]]
    epochs = [p.epoch for p in progress]
    if not epochs or epochs != list(range(1, record["epoch"] + 1)):
        raise ValueError(f"has the progress of epochs {epochs[:20]} after epoch {record['epoch']}")
    return Checkpoint(
        epoch=record["epoch"],
        done=record["done"],
        progress=progress,
        tensors=load_file(folder / TENSORS),
        test=TestResult.from_json(record["test"]) if record["test"] else None,
        ablation=Ablation.from_json(record["ablation"]) if record.get("ablation") else None,
    )
