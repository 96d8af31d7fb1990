"""One reading of a ledger: trials, curves, ends, winners that stand, searches that were ended early, time."""

import json
from collections import Counter

import pytest

from search_spaces.events import (
    DevicesShared,
    EpochReported,
    LedgerRecord,
    SearchesEndedEarly,
    SearchesResumed,
    SweepOpened,
    TrialAsked,
    TrialEnded,
    TrialStarted,
    WinnerChosen,
    event_from_json,
)
from search_spaces.history import SweepHistory
from search_spaces.records import BUDGET, Outcome, Progress
from tests.fixtures.tracking_sweep import FINAL, SEARCHED
from tests.search_spaces.test_events import FIRST_RELEASE

CELL = SEARCHED.cell


def first_release():
    lines = [json.loads(line[9:]) for line in FIRST_RELEASE.read_text(encoding="utf-8").splitlines()]
    return [LedgerRecord(seq=r.pop("seq"), time=r.pop("time"), event=event_from_json(r)) for r in lines]


def history(*events, times=None):
    times = times or range(len(events))
    pairs = zip(events, times, strict=True)
    return SweepHistory(LedgerRecord(seq=i, time=float(time), event=event) for i, (event, time) in enumerate(pairs, 1))


def asked(trial=SEARCHED):
    return TrialAsked(id=trial.id, trial=trial)


def epoch(number, seconds=2.0, trial=SEARCHED):
    values = {"epoch": number, "score": 60.0, "loss": 0.5, "best_score": 60.0, "best_epoch": 1, "seconds": seconds}
    return EpochReported(id=trial.id, progress=Progress(**values))


def ended(state="DONE", reason="epochs", trial=SEARCHED):
    return TrialEnded(id=trial.id, outcome=Outcome(state=state, reason=reason, epochs=2))


EARLY = SearchesEndedEarly(budget="1h", allowed=3600.0, spent=10.0, needed=5.0)


def test_the_ledger_of_the_first_release_says_what_its_lines_say():
    found = SweepHistory(first_release())
    lines = [json.loads(line[9:]) for line in FIRST_RELEASE.read_text(encoding="utf-8").splitlines()]
    assert list(found.trials) == list(dict.fromkeys(r["id"] for r in lines if r["event"] == "asked"))
    ends = {r["id"]: r["outcome"] for r in lines if r["event"] == "ended"}
    assert {i: t.outcome.to_json() for i, t in found.trials.items() if t.outcome} == ends
    epochs = Counter(r["id"] for r in lines if r["event"] == "progress")
    assert {i: t.epochs for i, t in found.trials.items()} == {i: epochs[i] for i in found.trials}
    winners = {tuple(r["cell"].values()): r["id"] for r in lines if r["event"] == "winner"}
    assert {tuple(sorted(vars(cell).values())): i for (cell, _), i in found.winners.items()} == {
        tuple(sorted(cell)): i for cell, i in winners.items()
    }
    assert found.ended_early is None, "they were resumed"
    assert found.manifest["sweep"] == "sweep-0"


def test_a_search_that_was_resumed_has_no_winner_and_its_stopped_trials_are_open_again():
    before = [asked(), epoch(1), EARLY, ended("STOPPED", BUDGET), WinnerChosen(cell=CELL, id=SEARCHED.id)]
    found = history(*before)
    assert (found.winners, found.ended_early) == ({(CELL, 0): SEARCHED.id}, EARLY)
    found = history(*before, SearchesResumed(cells=(CELL,)))
    assert (found.winners, found.ended_early) == ({}, None)
    assert found.trials[SEARCHED.id].outcome is None
    assert found.trials[SEARCHED.id].epochs == 1


def test_what_was_resumed_elsewhere_leaves_a_cell_as_it_was():
    other = type(CELL)(model="tiny", task="rte", method="full")
    found = history(asked(), ended(), WinnerChosen(cell=CELL, id=SEARCHED.id), EARLY, SearchesResumed(cells=(other,)))
    assert found.winners == {(CELL, 0): SEARCHED.id}
    assert found.trials[SEARCHED.id].outcome.state == "DONE"


def test_a_final_that_is_asked_for_again_starts_anew():
    found = history(asked(FINAL), epoch(1, trial=FINAL), asked(FINAL))
    assert found.trials[FINAL.id].epochs == 0


def test_time_between_two_drivers_is_not_spent():
    opened, other = SweepOpened(manifest={}), DevicesShared(slots=1, per_device=1)
    found = history(opened, other, opened, other, other, times=[100, 130, 1000, 1004, 1010])
    assert found.seconds_spent == 30 + 10
    assert SweepHistory().seconds_spent == 0


def test_the_slowest_epoch_and_the_slowest_whole_trial_of_a_cell():
    trial = history(asked(), epoch(1, 2.0), epoch(2, 5.0))
    assert (trial.slowest_epoch, trial.slowest_trial) == ({CELL: 5.0}, {})
    assert history(asked(), epoch(1, 2.0), epoch(2, 5.0), ended()).slowest_trial == {CELL: 7.0}
    assert history(asked(), epoch(1), ended("STOPPED", "asha")).slowest_trial == {}


@pytest.mark.parametrize(
    "event",
    [TrialStarted(id="x"), epoch(1), ended(), WinnerChosen(cell=CELL, id="x")],
    ids=lambda event: type(event).__name__,
)
def test_an_event_about_a_trial_that_was_never_asked_for_is_refused(event):
    with pytest.raises(ValueError, match="which no earlier record asks for"):
        history(event)
