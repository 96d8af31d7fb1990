"""The state machine of a sweep against closed-form curves: what runs, what is stopped, what a kill costs."""

import json
from contextlib import closing
from dataclasses import replace

import pytest

from orchestrator.ledger import Damaged, Ledger, read_history
from search_spaces.events import WinnerChosen
from search_spaces.language import Budget, choice, method
from tests.fixtures.fakes import Died, curve, drive, make_space, open_sweep, result
from tests.fixtures.ledger_lines import read


def trials_of(sweep):
    return [entry.trial for search in sweep.searches.values() for entry in search.entries]


def test_a_sweep_tries_the_budget_and_retrains_the_winner_on_fresh_seeds(tmp_path):
    sweep = drive(make_space(), tmp_path)
    for search in sweep.searches.values():
        assert len(search.search) == (6 if search.cell.method == "full" else 8)
        best = max((e for e in search.search if e.outcome.state == "DONE"), key=lambda e: e.outcome.best_score)
        assert search.winner is best
        assert [e.trial.seed for e in search.finals] == [1, 2]
        assert {e.trial.hyperparameters["lr"] for e in search.finals} == {best.trial.lr}
        assert all(e.outcome.state == "DONE" for e in search.finals)


def test_no_configuration_is_tried_twice(tmp_path):
    space = make_space(methods=(method("adapter", r=choice(8, 16, 32)),), budget=Budget(trials=12, final_seeds=1))
    sweep = drive(space, tmp_path)
    for search in sweep.searches.values():
        assert len({e.trial.id for e in search.search}) == 12


def test_a_finite_space_within_the_budget_is_enumerated(tmp_path):
    sweep = drive(make_space(), tmp_path)
    search = next(s for (cell, _), s in sweep.searches.items() if (cell.task, cell.method) == ("t", "full"))
    tried = {(e.trial.lr, e.trial.batch_size) for e in search.search}
    assert tried == {(lr, b) for lr in (1e-5, 1e-4, 1e-3) for b in (8, 16)}


def test_some_trials_are_stopped_and_none_that_win_or_are_final(tmp_path):
    sweep = drive(make_space(), tmp_path)
    states = [e.outcome.state for s in sweep.searches.values() for e in s.search]
    assert 0 < states.count("STOPPED") < len(states) / 2
    stopped = [e for s in sweep.searches.values() for e in s.search if e.outcome.state == "STOPPED"]
    assert {len(e.curve) for e in stopped} <= {2, 4}


@pytest.mark.parametrize(("workers", "seed"), [(1, 0), (2, 1), (7, 2), (20, 3)])
def test_the_result_depends_neither_on_timing_nor_on_the_number_of_workers(workers, seed, tmp_path):
    space = make_space()
    reference = drive(space, tmp_path / "a", workers=3, seed=9)
    assert result(drive(space, tmp_path / "b", workers=workers, seed=seed)) == result(reference)


def test_another_seed_gives_another_search(tmp_path):
    one, other = drive(make_space(), tmp_path / "a"), drive(make_space(seed=5), tmp_path / "b")
    assert {t.id for t in trials_of(one)}.isdisjoint(t.id for t in trials_of(other))


@pytest.mark.parametrize("kills", [[1], [2, 3], [37], [90, 5, 61], [10] * 12])
def test_a_killed_driver_continues_to_the_same_result(kills, tmp_path):
    space, trained = make_space(), []
    reference = drive(space, tmp_path / "calm")
    for i, kill in enumerate(kills):
        with pytest.raises(Died):
            drive(space, tmp_path / "killed", seed=i, dies_at=kill, trained=trained)
    sweep = drive(space, tmp_path / "killed", seed=99, trained=trained)
    assert result(sweep) == result(reference)
    assert len(trained) == len(set(trained)), "an epoch on record was trained again"


def test_a_finished_sweep_has_nothing_left_to_do(tmp_path):
    trained = []
    first = drive(make_space(), tmp_path)
    again = drive(make_space(), tmp_path, trained=trained)
    assert trained == []
    assert result(again) == result(first)


def test_another_space_reuses_the_same_trials(tmp_path):
    space, trained = make_space(), []
    drive(space, tmp_path, name="first")
    wider = replace(space, tasks=("t", "u", "v"))
    sweep = drive(wider, tmp_path, name="second", trained=trained)
    assert {trial_id for trial_id, _ in trained} == {t.id for t in trials_of(sweep) if t.cell.task == "v"}
    cached = [e for s in sweep.searches.values() for e in s.entries if e.cached]
    assert len(cached) == sum(t.cell.task != "v" for t in trials_of(sweep))
    final = next(e for e in cached if e.trial.phase == "final")
    assert (tmp_path / "second" / final.outcome.predictions).is_file()
    assert final.outcome.metrics == {"accuracy": curve(final.trial)[-1].best_score}


def test_a_failed_trial_is_recorded_and_cannot_win(tmp_path):
    bad = make_space().cells[0]

    def fails(trial):
        return trial.cell == bad and trial.lr == 1e-4 and trial.phase == "search"

    sweep = drive(make_space(), tmp_path, fails=fails)
    failed = [e for e in sweep.searches[bad, 0].search if e.outcome.state == "FAILED"]
    assert len(failed) == 2
    assert all(e.outcome.reason == "boom" for e in failed)
    assert sweep.finished
    assert not sweep.broken


def test_the_same_command_tries_failed_trials_again(tmp_path):
    space = make_space()
    bad = [c for c in space.cells if c.method == "full"]

    def fails(trial):
        return trial.cell in bad and trial.phase == "final"

    first = drive(space, tmp_path, fails=fails)
    assert {e.outcome.state for c in bad for e in first.searches[c, 0].finals} == {"FAILED"}
    again = drive(space, tmp_path)
    assert {e.outcome.state for c in bad for e in again.searches[c, 0].finals} == {"DONE"}
    assert result(again) == result(drive(space, tmp_path / "calm"))


def test_a_broken_sweep_can_be_continued_once_its_cause_is_mended(tmp_path):
    space = make_space()
    broken = drive(space, tmp_path, fails=lambda trial: True)
    assert broken.broken
    mended = drive(space, tmp_path)
    assert mended.finished
    assert not mended.failures


def test_the_recorded_winner_is_the_one_of_the_finals_after_failed_trials_were_mended(tmp_path):
    """Every trial but the worst of each cell fails at first, so that the worst one is the winner on record for a while."""
    space = make_space(tasks=("t",), methods=(method("full"),), budget=Budget(trials=6, final_seeds=2, grace=8))
    calm = drive(space, tmp_path / "calm")
    (search,) = calm.searches.values()
    worst = min(search.search, key=lambda e: e.outcome.best_score).trial.id
    broken = drive(space, tmp_path, fails=lambda trial: trial.id != worst)
    assert broken.broken
    mended = drive(space, tmp_path)
    assert result(mended) == result(calm)
    for folder in ("calm/sweep", "sweep"):
        history = read_history(tmp_path / folder)
        (winner,) = (history.trial(trial_id).trial for trial_id in history.winners.values())
        finals = [t.trial for t in history.trials.values() if t.trial.phase == "final"]
        assert len(finals) == 2
        assert {json.dumps(t.hyperparameters) for t in finals} == {json.dumps(winner.hyperparameters)}, folder


def test_a_stale_winner_that_an_earlier_version_recorded_is_corrected(tmp_path):
    sweep = drive(make_space(tasks=("t",), methods=(method("full"),)), tmp_path)
    (search,) = sweep.searches.values()
    stale = next(e.trial.id for e in search.search if e is not search.winner)
    with closing(Ledger.open(tmp_path / "sweep")) as ledger:
        ledger.append(WinnerChosen(cell=search.cell, id=stale))
    open_sweep(sweep.space, tmp_path)._ledger.close()
    assert read_history(tmp_path / "sweep").winners == {search.key: search.winner.trial.id}


def test_a_set_up_that_fails_at_once_stops_the_sweep(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    for _ in range(3):
        sweep.fail(sweep.next_trial().id, "no such file")
    assert sweep.broken == "3 of 3 trials failed"
    assert sweep.next_trial() == "finished"


def test_a_draining_sweep_starts_nothing_and_resumes_later(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    running = sweep.next_trial()
    sweep.drain("SIGINT")
    assert sweep.next_trial() == "finished"
    assert not sweep.finished
    sweep._ledger.close()
    assert read(tmp_path / "sweep")[-1]["event"] == "interrupted"
    again = open_sweep(make_space(), tmp_path)
    assert again.next_trial().id == running.id


def test_a_ledger_of_another_space_is_refused(tmp_path):
    drive(make_space(), tmp_path)
    with pytest.raises(Damaged, match="this space does not contain"):
        open_sweep(make_space(tasks=("x",)), tmp_path)


def test_reporting_twice_changes_nothing(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    trial = sweep.next_trial()
    first = curve(trial)[0]
    assert sweep.record(trial.id, first)
    before = len(read(tmp_path / "sweep"))
    assert sweep.record(trial.id, first)
    assert len(read(tmp_path / "sweep")) == before


def test_trials_train_as_long_as_their_configuration_says(tmp_path):
    space = make_space(
        methods=(method("full"),),
        search={"lr": choice(1e-5, 1e-4), "batch_size": 8, "epochs": choice(2, 8)},
        budget=Budget(trials=4, final_seeds=1, grace=8),
    )
    sweep = drive(space, tmp_path)
    for search in sweep.searches.values():
        assert sorted((e.trial.lr, len(e.curve)) for e in search.search) == [(1e-5, 2), (1e-5, 8), (1e-4, 2), (1e-4, 8)]
        assert all(len(e.curve) == e.trial.recipe.epochs for e in search.entries)
        assert search.finals[0].trial.recipe == search.winner.trial.recipe
    with pytest.raises(Died):
        drive(space, tmp_path / "killed", dies_at=9)
    assert result(drive(space, tmp_path / "killed")) == result(sweep)
