"""The winner that a report names is the configuration whose finals it shows, before and after larger time budgets."""

import shutil
from contextlib import closing
from itertools import pairwise
from statistics import fmean

import pytest

from orchestrator.ledger import Ledger, read_history
from orchestrator.ledger import read as read_records
from orchestrator.tracking.tracker import deliver_all
from reports.data.cells import hyperparameters
from reports.data.store import read as read_store
from reports.sections import winners
from reports.statistics.analysis import analyze
from search_spaces.events import SweepOpened
from tests.fixtures import report_store
from tests.fixtures.fakes import make_space
from tests.orchestrator.search.test_time_budget import Scene

BUDGETS = ("16s", "25s", None)


def manifest(space):
    task = {"title": "", "score": "accuracy", "metrics": ["accuracy"], "majority": 50.0, "test_source": "", "notes": []}
    sizes = {"split": "s", "train": 9, "validation": 9, "test": 2}
    changes = {
        "space": space.name,
        "paper": "",
        "tasks": {name: {**task, **sizes} for name in space.tasks},
        "budget": {"trials": space.budget.trials, "final_seeds": space.budget.final_seeds},
        "recipe": {"epochs": space.recipe.epochs, "patience": space.recipe.patience},
    }
    methods = [entry.label for entry in space.methods]
    return {**report_store.manifest(space.models, (), methods, "sweep-1"), **changes}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The sweep as its ledger and its report have it, after each of the budgets, one after the other."""
    root, space = tmp_path_factory.mktemp("budgets"), make_space(methods=make_space().methods[1:])
    folder, uri, found = root / "sweep", report_store.new_store(root), []
    with closing(Ledger.open(folder)) as ledger:
        ledger.append(SweepOpened(format=1, manifest=manifest(space)))
    for budget in BUDGETS:
        Scene(budget).run(space, root)
        deliver_all(uri, root / "artifacts", folder, read_records(folder))
        found.append((read_history(folder), analyze(read_store(uri, "sweep-1"))))
    shutil.rmtree(root)
    return found


@pytest.mark.parametrize("stage", range(len(BUDGETS)))
def test_the_winner_of_the_report_is_the_configuration_of_the_finals_that_it_shows(stages, stage):
    history, report = stages[stage]
    assert len(report.results) == 2
    named = winners.rows(report).set_index(["task", "method"])
    for cell, result in report.results.items():
        assert result.progress == "complete"
        winner = history.trials[history.winners[cell, 0]]
        assert named.loc[(cell.task, cell.method), "trial"] == winner.trial.id
        assert named.loc[(cell.task, cell.method), "best_score"] == pytest.approx(winner.outcome.best_score)
        shown = [history.trials[trial_id] for trial_id in result.trials]
        assert [each.trial.seed for each in shown] == [1, 2]
        assert all(each.trial.hyperparameters == winner.trial.hyperparameters for each in shown), cell
        assert fmean(result.scores) == pytest.approx(fmean(each.outcome.metrics["accuracy"] for each in shown))
        row = winners.won(report, cell, 0)
        assert {name: float(value) for name, value in hyperparameters(row).items()} == pytest.approx(
            winner.trial.hyperparameters
        )
        assert not result.mixed


def test_larger_budgets_change_winners_and_let_others_stay(stages):
    same = [
        before.winners[key] == after.winners[key]
        for (before, _), (after, _) in pairwise(stages)
        for key in before.winners
    ]
    assert sorted(same) == [False, False, False, True]


def test_finals_of_replaced_winners_count_in_no_result(stages):
    history, report = stages[-1]
    finals = {i for i, each in history.trials.items() if each.trial.phase == "final"}
    shown = {trial_id for result in report.results.values() for trial_id in result.trials}
    replaced = set(report.trials.loc[report.trials["phase"] == "replaced", "trial"])
    assert shown | replaced == finals
    assert not shown & replaced
    assert replaced
