"""Finds results of other sweeps in the same output folder by trial id, so that the same trial is not trained twice."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.ledger import Damaged, advice, good_lines, parse_record, stored_records
from orchestrator.search.predictions import read_predictions
from search_spaces.events import NAMES, EpochReported, TrialAsked, TrialEnded, TrialStarted
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


@dataclass(slots=True)
class _Trial:
    """Where the reports and the ends of a trial begin in the ledger of the sweep in `folder`, in bytes."""

    folder: Path
    starts: array[int] = field(default_factory=lambda: array("Q"))
    ended: bool = False

    def add(self, start: int, ended: bool) -> None:
        self.starts.append(start)
        self.ended = ended

    @property
    def rank(self) -> tuple[int, bool]:
        """How much there is to use."""
        return len(self.starts) - self.ended, self.ended


class ResultCache:
    """The trials of all sweeps in `root` except the sweep in folder `but`.

    The ledgers are looked through once, when this object is made, which raises Damaged if one of them is damaged. Only where the
    lines of a trial are is kept; they are read when its result is asked for.
    """

    def __init__(self, root: Path, but: Path):
        self._found: dict[str, _Trial] = {}
        for path in sorted(root.glob("*/ledger.jsonl")):
            if path.parent.resolve() != but.resolve():
                self._add(_look_through(path))

    def get(self, trial_id: str) -> CachedResult | None:
        """Return the result of a trial; None if there is none, or if its lines were changed since they were looked through."""
        found = self._found.get(trial_id)
        if found:
            with suppress(Damaged, OSError):
                events = [record.event for record in stored_records(found.folder, found.starts)]
                curve = [event.progress for event in events if isinstance(event, EpochReported)]
                ends = [event.outcome for event in events if isinstance(event, TrialEnded)]
                return CachedResult(folder=found.folder, curve=curve, outcome=ends[-1] if ends else None)
        return None

    def _add(self, trials: dict[str, _Trial]) -> None:
        # If several sweeps have the same trial, the one with most epochs is used.
        for trial_id, new in trials.items():
            old = self._found.get(trial_id)
            if old is None or new.rank > old.rank:
                self._found[trial_id] = new


def _look_through(path: Path) -> dict[str, _Trial]:
    """Return the trials of a ledger, by id. Of most lines only checksum, number, event and id are read, since more is slow."""
    found: dict[str, _Trial] = {}
    for number, start, text in good_lines(path):
        line = _OF_TRIAL.fullmatch(text)
        if line is None or int(line["seq"]) != number:
            parse_record(path, number, text)
            continue
        name, trial_id = line["event"].decode(), line["id"].decode()
        if name == _ASKED:
            found[trial_id] = _Trial(path.parent)
        elif trial_id not in found:
            raise Damaged(advice(path, number, f"is about trial {trial_id!r}, which no earlier record asks for"))
        elif name != _STARTED:
            found[trial_id].add(start, ended=name == _ENDED)
    return found


_ASKED, _STARTED, _EPOCH, _ENDED = (NAMES[each] for each in (TrialAsked, TrialStarted, EpochReported, TrialEnded))
# The lines of these events, as `orchestrator/ledger.py` writes them.
_OF_TRIAL = re.compile(
    rf'\{{(?:"cached":(?:true|false),|"decision":"(?:continue|stop)",)?"event":"(?P<event>{_ASKED}|{_STARTED}|{_EPOCH}|{_ENDED})",'
    r'"id":"(?P<id>[0-9a-f]{16})",(?:"number":[0-9]+,|"outcome":\{.*\},|"progress":\{[^{}]*\},)?'
    r'"seq":(?P<seq>[0-9]+),"time":[0-9.e+]+(?:,"trial":\{.*\})?\}'.encode()
)
