"""Finds results of other sweeps in the same output folder by trial id, so that the same trial is not trained twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger import read_history
from orchestrator.search.predictions import read_predictions
from search_spaces.records import Outcome, Progress, TestResult


@dataclass(frozen=True, kw_only=True)
class CachedResult:
    """The reports and the outcome of a trial in another sweep, whose folder is `folder`. `outcome` is None if it did not end."""

    folder: Path
    curve: Sequence[Progress]
    outcome: Outcome | None

    def test(self) -> TestResult | None:
        """Return the test result of a final; None for other trials, and if the file with the predictions is gone or damaged."""
        if not self.outcome or not self.outcome.predictions:
            return None
        found = read_predictions(self.folder / self.outcome.predictions)
        if found is None:
            return None
        predictions, labels = found
        return TestResult(
            metrics=self.outcome.metrics, predictions=predictions, labels=labels, collapsed=self.outcome.collapsed
        )


class ResultCache:
    """The trials of all sweeps in `root` except the sweep in folder `but`.

    The ledgers are read once, when this object is made, which raises Damaged if one of them is damaged.
    """

    def __init__(self, root: Path, but: Path):
        self._found: dict[str, CachedResult] = {}
        for path in sorted(root.glob("*/ledger.jsonl")):
            if path.parent.resolve() != but.resolve():
                self._read(path.parent)

    def get(self, trial_id: str) -> CachedResult | None:
        return self._found.get(trial_id)

    def _read(self, folder: Path) -> None:
        # If several sweeps have the same trial, the one with most epochs is used.
        for trial_id, trial in read_history(folder).trials.items():
            new = CachedResult(folder=folder, curve=trial.curve, outcome=trial.outcome)
            old = self._found.get(trial_id)
            if old is None or (len(new.curve), new.outcome is not None) > (len(old.curve), old.outcome is not None):
                self._found[trial_id] = new
