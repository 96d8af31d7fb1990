"""The Ray Tune side of a trial: one `step()` is one epoch. Imports torch only when a trial really starts.

Actors are reused from trial to trial, so everything costly happens lazily in `step`. Tune's own checkpoints stay empty: the
runner writes one per epoch under the trial's id, where a resumed sweep finds it whatever Tune remembers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from search_spaces.records import Trial

if TYPE_CHECKING:
    from trainables.runner import Runner

REPORT = "report"


class TrialTrainable(tune.Trainable):
    """config: trial (JSON text), source, data, checkpoints (paths as text)."""

    _runner: Runner | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self._runner = None

    def step(self) -> dict[str, Any]:
        if self._runner is None:
            self._runner = self._open()
        report = self._runner.next()
        content = {
            "progress": report.progress.to_json(),
            "outcome": report.outcome.to_json() if report.outcome else None,
            "test": report.test.to_json() if report.test else None,
        }
        # One text instead of nested dicts: Tune flattens and copies every key of a result, predictions included.
        return {REPORT: json.dumps(content), "done": report.outcome is not None}

    def _open(self) -> Runner:
        import torch

        from trainables.runner import Runner

        trial = Trial.from_json(json.loads(self.config["trial"]))
        gpu = torch.cuda.is_available() and bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
        if not gpu:
            torch.set_num_threads(1)  # a CPU trial owns one core; more threads would fight, and change the last bits
        return Runner(
            trial,
            self.config["source"],
            Path(self.config["data"]),
            Path(self.config["checkpoints"]) / trial.id,
            torch.device("cuda" if gpu else "cpu"),
        )

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._runner = None
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None
