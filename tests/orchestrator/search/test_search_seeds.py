"""Configurations that are tried on several seeds: what is asked for, what the study is told, who wins, what a kill changes."""

import tempfile
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.planning.plan import make_plan
from orchestrator.planning.sweep_manifest import space_json
from orchestrator.run_options import RunOptions
from orchestrator.search.cell import TrialEntry, aggregate_seeds
from orchestrator.search.curve import Curve
from search_spaces.language import Budget, choice, log_uniform, method
from search_spaces.records import Outcome, Progress
from tests.fixtures.fakes import drive, drive_killed, make_space, open_sweep, result

SEEDS = 3


def seeded_space(seeds=SEEDS, in_flight=2, grace=2, trials=8):
    return make_space(budget=Budget(trials=trials, search_seeds=seeds, final_seeds=2, in_flight=in_flight, grace=grace))


def groups(search):
    """The trials of each configuration, in the order in which they were asked for."""
    found = {}
    for entry in search.search:
        found.setdefault(tuple(entry.trial.hyperparameters.items()), []).append(entry)
    return list(found.values())


def done(seeds):
    return [e.outcome.best_score for e in seeds if e.outcome.state == "DONE"]


def test_every_configuration_is_trained_on_every_seed_and_the_best_mean_wins(tmp_path):
    sweep = drive(seeded_space(grace=8), tmp_path)
    for search in sweep.searches.values():
        tried = groups(search)
        assert len(tried) == (6 if search.cell.method == "full" else 8)
        assert all([e.trial.seed for e in seeds] == [0, 1, 2] for seeds in tried)
        best = max(tried, key=lambda seeds: fmean(done(seeds)))
        assert search.winner is best[0]
        assert [e.trial.seed for e in search.finals] == [3, 4]
        assert {tuple(e.trial.hyperparameters.items()) for e in search.finals} == {
            tuple(best[0].trial.hyperparameters.items())
        }


def test_the_best_single_trial_does_not_win_against_a_better_mean(tmp_path):
    sweep = drive(seeded_space(grace=8), tmp_path)
    lucky = [max(s.search, key=lambda e: e.outcome.best_score) for s in sweep.searches.values()]
    winners = [s.winner for s in sweep.searches.values()]
    assert any(
        one.trial.hyperparameters != other.trial.hyperparameters for one, other in zip(lucky, winners, strict=True)
    )


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_a_configuration_that_lost_a_seed_cannot_win_by_the_others(how, tmp_path):
    calm = drive(seeded_space(grace=8), tmp_path / "calm")
    (cell, _), search = next(iter(calm.searches.items()))
    hurt = max(groups(search), key=lambda seeds: fmean(done(seeds)))
    lost = min(hurt, key=lambda e: e.outcome.best_score).trial.id

    if how == "failed":
        found = drive(seeded_space(grace=8), tmp_path / "hurt", fails=lambda trial: trial.id == lost).searches[cell, 0]
    else:
        found = calm.searches[cell, 0]
        found.winner = None
        entry = next(e for e in found.search if e.trial.id == lost)
        entry.outcome = Outcome(state="STOPPED", reason="asha", epochs=2, best_epoch=2, best_score=1.0)
        found.choose_winner()
    rest = [seeds for seeds in groups(found) if seeds[0].trial.id != hurt[0].trial.id]
    assert found.winner is max(rest, key=lambda seeds: fmean(done(seeds)))[0]


def test_where_every_configuration_lost_a_seed_the_one_with_most_of_them_wins(tmp_path):
    def fails(trial):
        return trial.phase == "search" and trial.seed == 1 and (trial.cell.task, trial.cell.method) == ("t", "full")

    # A fifth of all trials may fail before the sweep counts as broken, so the other cells have none.
    sweep = drive(seeded_space(grace=8), tmp_path, fails=fails)
    search = next(s for (c, _), s in sweep.searches.items() if c.task == "t")
    assert search.winner is max(groups(search), key=lambda seeds: fmean(done(seeds)))[0]


def entry(state, *scores):
    curve = Curve()
    for i, s in enumerate(scores, 1):
        curve.append(Progress(epoch=i, score=s, loss=1.0, best_score=s, best_epoch=i, seconds=1.0))
    return TrialEntry(None, 0, curve, Outcome(state=state, reason="", epochs=len(scores), best_score=scores[-1]))


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("DONE", "DONE"), "DONE"),
        (("DONE", "STOPPED"), "STOPPED"),
        (("STOPPED", "FAILED"), "FAILED"),
        (("FAILED", "DONE"), "FAILED"),
        (("DONE", "INVALID"), "INVALID"),
    ],
)
def test_the_study_is_told_the_worst_end_and_the_mean_of_the_scores(states, told):
    outcome, curve = aggregate_seeds([entry(states[0], 10.0, 30.0), entry(states[1], 20.0, 40.0, 50.0)])
    assert outcome.state == told
    assert outcome.best_score == 40.0
    assert curve == {1: 15.0, 2: 35.0}


def test_the_study_hears_of_each_configuration_once(tmp_path):
    sweep = drive(seeded_space(grace=8), tmp_path)
    for search in sweep.searches.values():
        told = [t for t in search.study._study.trials if t.state.is_finished()]
        assert len(told) <= len(groups(search)) == search.study.num_asked
        for trial, seeds in zip(told, groups(search), strict=False):
            assert trial.value == pytest.approx(fmean(done(seeds)))


@pytest.mark.parametrize(("workers", "seed"), [(1, 0), (2, 1), (7, 2), (30, 3)])
@pytest.mark.parametrize("in_flight", [1, 2, 5, 24])
def test_the_result_depends_neither_on_timing_nor_on_the_number_of_workers(workers, seed, in_flight, tmp_path):
    space = seeded_space(in_flight=in_flight)
    reference = drive(space, tmp_path / "a", workers=3, seed=9)
    assert result(drive(space, tmp_path / "b", workers=workers, seed=seed)) == result(reference)


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.integers(1, 4),
    in_flight=st.integers(1, 7),
    grace=st.sampled_from([1, 2, 8]),
    kills=st.lists(st.integers(1, 60), max_size=4),
)
def test_killed_at_any_point_a_sweep_asks_for_the_same_trials(seeds, in_flight, grace, kills):
    space = make_space(
        tasks=("t",),
        methods=(method("adapter", r=choice(8, 16, 32), lr=log_uniform(1e-5, 1e-2)),),
        budget=Budget(trials=7, search_seeds=seeds, final_seeds=2, in_flight=in_flight, grace=grace),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        reference = drive(space, root / "calm")
        killed = drive_killed(space, root / "killed", kills)
        assert result(killed) == result(reference)


def test_the_same_command_tries_failed_seeds_again(tmp_path):
    space = seeded_space(grace=8)
    bad = next(iter(space.cells))
    first = drive(space, tmp_path, fails=lambda t: t.cell == bad and t.seed == 3)
    assert {e.outcome.state for e in first.searches[bad, 0].finals} == {"FAILED", "DONE"}
    assert result(drive(space, tmp_path)) == result(drive(space, tmp_path / "calm"))


def test_one_search_seed_changes_no_name_and_several_do():
    assert "search_seeds" not in space_json(make_space())["budget"]
    assert space_json(seeded_space())["budget"]["search_seeds"] == SEEDS


def test_a_plan_counts_every_seed():
    space = make_space(models=("minilm",), tasks=("agreement",), methods=(method("full"),))
    one, three = (
        make_plan(
            make_space(**{**vars(space), "budget": Budget(trials=4, search_seeds=n, final_seeds=2)}), RunOptions()
        )
        for n in (1, 3)
    )
    assert (one.trials, three.trials) == (4 + 2, 4 * 3 + 2)


def test_more_seeds_reuse_the_trials_of_one(tmp_path):
    drive(seeded_space(seeds=1, grace=8, trials=6), tmp_path, name="one")
    again = open_sweep(seeded_space(seeds=1, grace=8, trials=6), tmp_path, "one")
    known = {e.trial.id for s in again.searches.values() for e in s.search if s.cell.method == "full"}
    again._ledger.close()
    sweep = drive(seeded_space(grace=8, trials=6), tmp_path, name="three")
    cached = {e.trial.id for s in sweep.searches.values() for e in s.search if e.cached}
    assert known <= cached
