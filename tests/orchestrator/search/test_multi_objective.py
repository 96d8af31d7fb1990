"""The search for high scores with few trained parameters: what is proposed, what is stopped, what wins, what is refused."""

import math
from dataclasses import replace

import optuna
import pytest

from benchmarks.fake_sweep import make
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.space_files import load_space
from orchestrator.planning.sweep_manifest import folder_name, space_json
from orchestrator.run_options import RunOptions
from orchestrator.search.cell import CellSearch, stopped
from orchestrator.search.sampler import open_study
from orchestrator.search.study_storage import FILE, write_studies
from search_spaces.language import Budget, Cell, Recipe, Space, choice, log_uniform, method
from search_spaces.records import Counts, Outcome, Progress
from tests.fixtures import fakes
from tests.fixtures.fakes import count, drive, make_space

SIZES = tuple(2**i for i in range(10))
DIMENSIONS = {"lr": log_uniform(1e-5, 1e-1), "r": choice(*SIZES)}


def study_of(seed, kind="multi", trials=60):
    return open_study(DIMENSIONS, Budget(trials=trials, search=kind), seed, Cell(model="m", task="t", method="adapter"))


def outcome_of(point):
    """More parameters help, and the smaller a configuration is, the higher its best learning rate."""
    best = -2 - 2 * math.log2(point["r"]) / 9
    score = 80 + 1.5 * math.log2(point["r"]) - 10 * abs(math.log10(point["lr"]) - best)
    counts = Counts(weights=1, module=1, trained=100 * point["r"], total=10**6)
    return Outcome(state="DONE", reason="epochs", epochs=1, best_epoch=1, best_score=score, counts=counts)


def search(study):
    points = []
    for number in range(study.limit):
        points.append(study.ask())
        study.tell(number, outcome_of(points[-1]), [])
    return points


def dominated_area(points):
    """The area below the front, of scores above 60 over the logarithm of r."""
    best = [max((outcome_of(p).best_score for p in points if p["r"] <= size), default=60) for size in SIZES]
    return sum(max(0, score - 60) for score in best)


def test_the_front_is_found_better_than_at_random_and_than_for_the_score_alone():
    areas = {
        kind: [dominated_area(search(study_of(seed, kind))) for seed in range(4)] for kind in ("multi", "random", "tpe")
    }
    mean = {kind: sum(each) / len(each) for kind, each in areas.items()}
    assert mean["multi"] > 1.03 * max(mean["random"], mean["tpe"])


def test_a_replayed_record_leaves_the_next_proposal_unchanged():
    whole, resumed = study_of(3), study_of(3)
    for number in range(40):
        point = whole.ask()
        assert resumed.replay(point) == point
        # Every third one is stopped, and one fails.
        outcome = outcome_of(point)
        if number % 3 == 0:
            outcome = Outcome(state="STOPPED" if number else "FAILED", reason="asha", epochs=1)
        for study in (whole, resumed):
            study.tell(number, outcome, [])
    assert resumed.ask() == whole.ask()
    states = optuna.trial.TrialState
    assert [t.state for t in whole._study.trials[:4]] == [states.FAIL, states.COMPLETE, states.COMPLETE, states.PRUNED]


def space_of(**budget):
    return make_space(
        tasks=("t",),
        methods=(method("adapter", r=choice(*SIZES)),),
        search={"lr": choice(1e-4, 1e-3, 1e-2), "batch_size": 8},
        budget=Budget(**{"trials": 24, "final_seeds": 1, "search": "multi", **budget}),
    )


def searched(space, count):
    """A finished search, without a ledger, in which more parameters always give a higher score."""
    search = CellSearch(space.cells[0], space, make(space), count=count)
    while search.num_startable > 0 and search.winner is None:
        entry, ended = search.next(), None
        for epoch in range(1, space.recipe.epochs + 1):
            score = 50.0 + math.log2(entry.trial.settings["r"]) + epoch / 100
            point = Progress(epoch=epoch, score=score, loss=1.0, best_score=score, best_epoch=epoch, seconds=1.0)
            stop = search.stops(entry, point)
            entry.curve.append(point)
            if stop:
                ended = stopped(entry.curve.last)
                break
        done = Outcome(state="DONE", reason="epochs", epochs=epoch, best_epoch=epoch, best_score=score)
        counts = Counts(weights=1, module=1, trained=entry.trial.settings["r"], total=100)
        search.end(entry, ended or Outcome(**{**vars(done), "counts": counts}))
        search.choose_winner()
    return search


def test_a_small_configuration_is_not_stopped_by_larger_ones():
    def finished(search):
        return {e.trial.settings["r"] for e in search.search if e.outcome.state == "DONE"}

    multi, tpe = searched(space_of(), count), searched(space_of(search="tpe"), count)
    asked = {e.trial.settings["r"] for e in multi.search}
    assert finished(multi) == asked
    assert min(finished(tpe)) > min(e.trial.settings["r"] for e in tpe.search)
    assert multi.winner.trial.settings["r"] == max(asked)


def test_a_trial_is_stopped_by_better_ones_of_its_size_and_by_none_while_its_size_is_unknown():
    def num_stopped(search):
        return sum(e.outcome.state == "STOPPED" for e in search.search)

    assert num_stopped(searched(space_of(), lambda trial: Counts(weights=1, module=1, trained=7, total=100))) > 3
    assert num_stopped(searched(space_of(), lambda trial: None)) == 0


def test_the_smallest_of_equally_good_configurations_wins(tmp_path, monkeypatch):
    def flat(trial):
        return [
            Progress(epoch=e, score=70.0, loss=1.0, best_score=70.0, best_epoch=1, seconds=1.0) for e in range(1, 9)
        ]

    monkeypatch.setattr(fakes, "curve", flat)
    (multi,), (tpe,) = (
        drive(space_of(search=kind), tmp_path, name=kind).searches.values() for kind in ("multi", "tpe")
    )
    smallest = min(multi.search, key=lambda e: (e.trial.settings["r"], e.trial.lr))
    assert multi.winner is smallest
    assert tpe.winner is min(tpe.search, key=lambda e: (e.trial.lr, e.number))
    assert tpe.winner.trial.settings["r"] > smallest.trial.settings["r"]


def test_optuna_s_dashboard_gets_both_objectives(tmp_path):
    sweep = drive(space_of(trials=8), tmp_path)
    write_studies(tmp_path / FILE, sweep.searches.values(), sweep._ledger.records, {"t": "accuracy"})
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / FILE)))
    study = optuna.load_study(study_name="m/t/adapter", storage=storage)
    (search,) = sweep.searches.values()
    assert study.metric_names == ["validation accuracy", "trained parameters"]
    assert [t.values for t in study.trials if t.values] == [
        [e.outcome.best_score, e.outcome.counts.trained] for e in search.search if e.outcome.state == "DONE"
    ]
    assert study.best_trials


ROWS = (method("full", lr=choice(1e-5, 1e-4)), method("adapter", r=choice(8, 32), lr=choice(1e-4, 1e-3)))


def real_space(rows):
    return Space(
        name="trade",
        models=("minilm",),
        tasks=("agreement",),
        methods=rows,
        search={"batch_size": choice(16)},
        recipe=Recipe(epochs=8),
        budget=Budget(search="multi", brackets=2),
    )


def test_a_space_in_which_no_row_has_two_sizes_is_refused_and_one_row_is_enough():
    with pytest.raises(
        ValueError, match=r"budget: search = 'multi' .* in each row \(full\) all configurations train equally many"
    ):
        make_plan(real_space(ROWS[:1]), RunOptions())
    text = plan_text(make_plan(real_space(ROWS), RunOptions()), RunOptions())
    assert "at most 8 tried per cell, proposed for high scores with few trained parameters, its winner" in text
    assert (
        "factor 2, in 2 brackets (first rungs: epochs 2, 4), each trial compared only with those that train no" in text
    )
    assert "no smaller configuration can be found: full\n" in text


def test_yaml_and_the_name_of_the_sweep(tmp_path):
    path = tmp_path / "trade.yaml"
    path.write_text(
        "models: [minilm]\ntasks: [agreement]\nmethods: [{name: adapter, r: 'choice(8, 32)'}]\n"
        "search: {lr: 1e-3, batch_size: 16}\nbudget: {search: multi, brackets: 2}\n"
    )
    space = load_space(str(path))
    assert space.budget == Budget(search="multi", brackets=2)
    names = {
        folder_name(replace(space, budget=budget)) for budget in (Budget(), Budget(brackets=2), Budget(search="multi"))
    }
    assert len(names) == 3
    assert not {"brackets", "search"} & set(space_json(replace(space, budget=Budget()))["budget"])
