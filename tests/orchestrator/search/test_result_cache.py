"""What a start costs beside other sweeps, and what is found in them."""

import time
from contextlib import closing

import pytest

from benchmarks.fake_sweep import make
from orchestrator.ledger import Damaged, Ledger, read
from orchestrator.search import result_cache
from orchestrator.search.result_cache import ResultCache
from search_spaces.events import EpochReported, TrialAsked, TrialEnded, TrialStarted
from search_spaces.records import Outcome
from tests.fixtures.fakes import curve, drive, end_of, make_space


def test_what_is_found_is_what_the_ledger_says_without_parsing_it_at_the_start(tmp_path, monkeypatch):
    drive(make_space(), tmp_path, name="other")
    parse, parsed = result_cache.parse_record, []

    def note(*line):
        parsed.append(parse(*line).event)
        return parse(*line)

    monkeypatch.setattr(result_cache, "parse_record", note)
    cache = ResultCache(tmp_path, tmp_path / "sweep")
    assert not any(hasattr(event, "trial") or hasattr(event, "outcome") for event in parsed)
    records = read(tmp_path / "other")
    ends = {r.event.id: r.event.outcome for r in records if isinstance(r.event, TrialEnded)}
    assert len(ends) > 20
    for trial_id, outcome in ends.items():
        epochs = [r.event.progress for r in records if isinstance(r.event, EpochReported) and r.event.id == trial_id]
        found = cache.get(trial_id)
        assert (list(found.curve), found.outcome) == (epochs, outcome)
    assert cache.get("0123456789abcdef") is None
    assert ResultCache(tmp_path, tmp_path / "other").get(next(iter(ends))) is None, (
        "a sweep's own results are not cached"
    )


def write(folder, trials, *events):
    with closing(Ledger.open(folder)) as ledger:
        for trial in trials:
            points = [EpochReported(id=trial.id, progress=point) for point in curve(trial)]
            ledger.append(TrialAsked(id=trial.id, trial=trial), TrialStarted(id=trial.id), *points, *events)


@pytest.fixture
def trial():
    space = make_space()
    return make(space)(space.cells[0], {"lr": 1e-3, "batch_size": 8}, 0, "search")


def test_of_two_sweeps_with_a_trial_the_one_that_trained_it_to_its_end_is_used(tmp_path, trial):
    outcome, _ = end_of(trial, curve(trial)[-1])
    write(tmp_path / "a", [trial], TrialEnded(id=trial.id, outcome=outcome))
    write(tmp_path / "b", [trial])
    found = ResultCache(tmp_path, tmp_path / "sweep").get(trial.id)
    assert (found.folder, found.outcome) == (tmp_path / "a", outcome)


def test_a_trial_that_was_asked_for_again_starts_anew(tmp_path, trial):
    write(tmp_path / "a", [trial, trial])
    assert [point.epoch for point in ResultCache(tmp_path, tmp_path / "sweep").get(trial.id).curve] == list(range(1, 9))


@pytest.mark.parametrize("change", ["removed", "overwritten"])
def test_a_result_that_was_changed_since_the_start_is_not_used(tmp_path, trial, change):
    write(tmp_path / "a", [trial])
    cache, path = ResultCache(tmp_path, tmp_path / "sweep"), tmp_path / "a" / "ledger.jsonl"
    assert cache.get(trial.id)
    path.write_bytes(path.read_bytes().replace(b'"epoch":8', b'"epoch":9'))
    if change == "removed":
        path.unlink()
    assert cache.get(trial.id) is None


def test_a_record_about_a_trial_that_was_not_asked_for_is_damage(tmp_path, trial):
    with closing(Ledger.open(tmp_path / "a")) as ledger, pytest.raises(ValueError, match="no earlier record"):
        ledger.append(TrialStarted(id=trial.id))
    with pytest.raises(Damaged, match=r"record 1: it is about trial .*no earlier record asks for"):
        ResultCache(tmp_path, tmp_path / "sweep")


@pytest.mark.slow
def test_a_finished_sweep_of_two_thousand_trials_costs_a_start_a_tenth_of_a_second(tmp_path):
    space = make_space()
    lrs = [1e-5 + i * 1e-7 for i in range(2000)]
    trials = [make(space)(space.cells[0], {"lr": lr, "batch_size": 8}, 0, "search") for lr in lrs]
    with closing(Ledger.open(tmp_path / "a")) as ledger:
        for trial in trials:
            events = [EpochReported(id=trial.id, progress=point) for point in curve(trial)]
            end = TrialEnded(id=trial.id, outcome=Outcome(state="DONE", reason="epochs", epochs=8))
            ledger.append(TrialAsked(id=trial.id, trial=trial), TrialStarted(id=trial.id), *events, end)

    def seconds():
        began = time.process_time()
        ResultCache(tmp_path, tmp_path / "sweep")
        return time.process_time() - began

    assert min(seconds() for _ in range(5)) < 0.1
