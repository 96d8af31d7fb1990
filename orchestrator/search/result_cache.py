"""Results of other sweeps under the same output folder, found by trial id: the same trial is never trained twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger import read_history
from search_spaces.records import Outcome, Progress, TestResult


@dataclass(frozen=True, kw_only=True)
class CachedResult:
    """A trial of another sweep, in this folder: what it reported, and how it ended if it has."""

    folder: Path
    curve: Sequence[Progress]
    outcome: Outcome | None

    def test(self) -> TestResult | None:
        """The test result of a final, if its predictions are still there."""
        if not self.outcome or not self.outcome.predictions:
            return None
        path = self.folder / self.outcome.predictions
        if not path.is_file():
            return None
        stored = json.loads(path.read_text(encoding="utf-8"))
        return TestResult(
            metrics=self.outcome.metrics,
            predictions=tuple(stored["predictions"]),
            labels=tuple(stored["labels"]),
            collapsed=self.outcome.collapsed,
        )


class ResultCache:
    """Reads the ledgers of all sweeps in `root` but this one, once, at the start. Raises Damaged for one that is."""

    def __init__(self, root: Path, but: Path):
        self._found: dict[str, CachedResult] = {}
        for path in sorted(root.glob("*/ledger.jsonl")):
            if path.parent.resolve() != but.resolve():
                self._read(path.parent)

    def get(self, trial_id: str) -> CachedResult | None:
        return self._found.get(trial_id)

    def _read(self, folder: Path) -> None:
        # Of two sweeps that hold the same trial, keep the one that got further.
        for trial_id, trial in read_history(folder).trials.items():
            new = CachedResult(folder=folder, curve=trial.curve, outcome=trial.outcome)
            old = self._found.get(trial_id)
            if old is None or (len(new.curve), new.outcome is not None) > (len(old.curve), old.outcome is not None):
                self._found[trial_id] = new
