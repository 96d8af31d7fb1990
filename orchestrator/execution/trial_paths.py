"""Paths that a device worker needs to train a trial, and what its machine must share with the driver's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.records import Trial


@dataclass(frozen=True, kw_only=True)
class TrialPaths:
    # By model name: a directory, or the name under which the model is in the Hub's cache.
    sources: Mapping[str, str]
    # Paths of the tokens files by (model, task, number of the search).
    data: Mapping[tuple[str, str, int], Path]
    # The folder that contains a folder for the checkpoint of each trial.
    checkpoints: Path
    # The driver's code and package versions (`worker_environment.environment`), and the sweep's id, by which a worker checks that
    # its machine is fit for the sweep. Empty: nothing is checked.
    environment: Mapping[str, str] = field(default_factory=dict)
    sweep: str = ""
    # Where checkpoints are kept instead: an absolute path or an address (`FileSystemStore`). "" for `checkpoints`.
    storage: str = ""

    def job(self, trial: Trial) -> dict[str, Any]:
        """Return the message that tells a device worker to train this trial."""
        return {
            "id": trial.id,
            "trial": trial.to_json(),
            "source": self.sources[trial.cell.model],
            "data": str(self.data[trial.cell.model, trial.cell.task, trial.search]),
            "checkpoints": str(self.checkpoints),
            "environment": dict(self.environment),
            "sweep": self.sweep,
            "storage": self.storage,
        }
