"""Epochs that do not count (a first phase, AdaLoRA above its target rank) neither stop a trial nor let it win."""

from dataclasses import replace

import pytest

from orchestrator.tracking.run_projection import _final_values
from search_spaces import keys
from search_spaces.language import Budget, method
from search_spaces.records import BUDGET, Counts, Outcome, Progress
from tests.fixtures import fakes
from tests.fixtures.fakes import drive, make_space
from tests.orchestrator.search.test_time_budget import Scene

FIRST_COUNTED = 5  # of 8 epochs


@pytest.fixture
def two_phases(monkeypatch):
    """Trials of lt_sft report high scores in epochs 1 to 4, the higher the worse they end, which do not count."""
    counted = fakes.curve

    def curve(trial) -> list[Progress]:
        if trial.method != "lt_sft":
            return counted(trial)
        points, best, best_epoch = [], 0.0, 0
        for point in counted(replace(trial, method="full")):
            score = point.score
            if point.epoch >= FIRST_COUNTED and score > best:
                best, best_epoch = score, point.epoch
            first = 100 - counted(trial)[-1].best_score
            shown = score if point.epoch >= FIRST_COUNTED else first
            points.append(replace(point, score=shown, best_score=best, best_epoch=best_epoch))
        return points

    monkeypatch.setattr(fakes, "curve", curve)


def space(**changes):
    return make_space(methods=(method("lt_sft"), method("full")), **changes)


def test_no_rung_judges_a_trial_by_epochs_that_do_not_count(two_phases, tmp_path):
    budget = Budget(trials=6, final_seeds=1, grace=1, min_values=1)
    sweep = drive(space(budget=budget), tmp_path, workers=3)
    ends = {name: [] for name in ("lt_sft", "full")}
    for (cell, _), search in sweep.searches.items():
        ends[cell.method] += [len(e.curve) for e in search.search if e.outcome.state == "STOPPED"]
    assert not [end for end in ends["lt_sft"] if end < FIRST_COUNTED]
    assert [end for end in ends["full"] if end < FIRST_COUNTED], "the control is stopped early"


def test_rungs_after_the_first_counted_epoch_decide_by_counted_scores_alone(two_phases, tmp_path):
    budget = Budget(trials=6, final_seeds=1, grace=6, min_values=1)
    sweep = drive(space(budget=budget), tmp_path)
    for search in sweep.searches.values():
        known = search._rungs[0, 6]
        assert known == [(e.number, e.curve.best_at(6), 0) for e in search.search if e.curve.best_at(6) is not None]
        assert all(score > 0 for _, score, _ in known)
        assert search.winner.outcome.best_epoch >= (FIRST_COUNTED if search.cell.method == "lt_sft" else 1)


@pytest.mark.parametrize(("seconds", "workers"), [(1, 1), (12, 1), (80, 1), (1, 3), (12, 3), (45, 3)])
def test_a_time_budget_that_ends_in_the_first_phase_lets_no_trial_win_by_it(two_phases, seconds, workers, tmp_path):
    sweep = Scene(f"{seconds}s", workers).run(space(), tmp_path)
    assert sweep.finished
    early = 0
    for search in sweep.searches.values():
        assert search.winner
        assert search.winner.outcome.best_epoch >= (FIRST_COUNTED if search.cell.method == "lt_sft" else 1)
        assert len(search.finals) == 2
        early += sum(e.outcome.reason == BUDGET and not e.outcome.best_epoch for e in search.search)
        able = [e for e in search.search if e.can_win]
        assert search.winner.outcome.best_score == max(e.outcome.best_score for e in able)
    assert early == (1 if seconds == 45 else 0), "a trial that has no score is stopped only where another can win"


def test_without_a_counted_epoch_no_best_score_is_recorded():
    counts = Counts(weights=1, module=2, trained=3, total=4)
    none = Outcome(state="STOPPED", reason=BUDGET, epochs=3, counts=counts)
    assert keys.best("accuracy") not in _final_values(none, "accuracy")
    some = replace(none, best_epoch=2, best_score=0.0)
    assert _final_values(some, "accuracy")[keys.best("accuracy")] == 0.0
