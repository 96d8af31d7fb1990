"""What a plan foretells, against sweeps that are then run and against data that are then read."""

import math
from contextlib import closing
from dataclasses import replace

import pytest

from orchestrator.execution import cluster
from orchestrator.execution.cluster import device_name
from orchestrator.ledger import Ledger, read_history
from orchestrator.planning import forecast
from orchestrator.planning.forecast import (
    RemainingEpochs,
    SearchProgress,
    check_budget,
    make_forecast,
    makespan,
    remaining_epochs,
    search_progress,
)
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.sweep_manifest import folder_name
from orchestrator.planning.throughput import Setting, Throughput, expected, measured
from orchestrator.planning.token_counts import count_tokens, train_examples
from orchestrator.run_options import RunOptions
from search_spaces.events import event_from_json
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method
from search_spaces.records import BUDGET, END_STATES
from tests.fixtures.encoders import write_tiny
from tests.fixtures.fakes import curve, drive, end_of, make_space
from tests.fixtures.run_options import make_options
from tests.orchestrator.search.test_time_budget import Scene
from tests.trainables.tasks.test_data_nsmc import rows, write
from trainables.tasks import nsmc_reviews, task_loading, tokens
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.splits import split


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    for module in (cluster, forecast):
        monkeypatch.setattr(module, "count_cores", lambda: 2)


def fake_plan(**changes) -> Plan:
    return Plan(space=make_space(**changes), reductions=(), shapes={"m": None}, tasks={})


def epochs_of(sweep):
    return {cell: sum(len(e.curve) for e in search.entries) for (cell, _), search in sweep.searches.items()}


@pytest.mark.parametrize("patience", [2, 8])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_sweep_trains_as_many_epochs_as_were_foreseen_at_least_and_at_most(patience, in_flight, tmp_path):
    space = make_space(
        recipe=Recipe(epochs=8, patience=patience), budget=Budget(trials=8, final_seeds=2, in_flight=in_flight)
    )
    plan = Plan(space=space, reductions=(), shapes={}, tasks={})
    for cell, epochs in epochs_of(drive(space, tmp_path)).items():
        foreseen = remaining_epochs(plan, cell, SearchProgress())
        assert foreseen.min_total <= epochs <= foreseen.max_total
        assert foreseen.max_total == (plan.num_configurations(space.entry(cell.method)) + 2) * 8


def test_the_least_is_what_a_search_takes_whose_first_trials_are_its_best(tmp_path):
    """Later ones are all stopped at the first rung, none that must not be."""
    space = make_space(
        tasks=("t",), methods=(method("adapter", r=choice(8, 16, 32)),), recipe=Recipe(epochs=8, patience=8)
    )
    plan = Plan(space=space, reductions=(), shapes={}, tasks={})
    (cell,) = space.cells
    number = {}

    def falling(trial):
        rank = number.setdefault(trial.id, len(number))
        return [replace(p, score=90 - rank, best_score=90 - rank, best_epoch=1) for p in curve(trial)]

    def run():
        from tests.fixtures.fakes import open_sweep

        sweep = open_sweep(space, tmp_path)
        with closing(sweep._ledger):
            while not isinstance(trial := sweep.next_trial(), str):
                points = falling(trial)
                for p in points:
                    ended = end_of(trial, p) if p is points[-1] else (None, None)
                    if not sweep.record(trial.id, p, *ended):
                        break
        return sweep

    assert epochs_of(run())[cell] == remaining_epochs(plan, cell, SearchProgress()).min_total


def test_the_longest_chain_of_a_cell_is_its_rounds_and_a_final():
    plan = fake_plan(budget=Budget(trials=7, final_seeds=2, in_flight=2), methods=(method("adapter", r=choice(8, 16)),))
    found = remaining_epochs(plan, plan.space.cells[0], SearchProgress())
    assert found.max_sequential == 4 * 8 + 8
    # Trials 0 to 3 cannot be stopped, but a chain may go through others.
    assert found.min_sequential == 4 * 2 + 8


def test_what_is_done_is_not_left(tmp_path):
    space = make_space()
    drive(space, tmp_path)
    known, plan = (
        search_progress(read_history(tmp_path / "sweep")),
        Plan(space=space, reductions=(), shapes={}, tasks={}),
    )
    for cell in space.cells:
        assert known[cell, 0].num_finals == 2
        assert set(known[cell, 0].states) <= set(END_STATES)
        assert remaining_epochs(plan, cell, known[cell, 0]) == RemainingEpochs(
            min_total=0, max_total=0, min_sequential=0, max_sequential=0
        )


def test_epochs_of_a_trial_that_has_begun_are_not_left():
    plan = fake_plan()
    cell = plan.space.cells[0]
    new, begun = (
        remaining_epochs(plan, cell, SearchProgress()),
        remaining_epochs(plan, cell, SearchProgress(begun_epochs=3)),
    )
    assert (new.max_total - begun.max_total, new.min_total - begun.min_total) == (3, 3)


def test_a_larger_time_budget_has_the_rest_of_the_search_before_it_and_perhaps_all_finals(tmp_path):
    space = make_space()
    ended = Scene("30s").run(space, tmp_path)
    history, plan = read_history(tmp_path / "sweep"), Plan(space=space, reductions=(), shapes={}, tasks={})
    assert forecast._time_budget(history.ended_early, "30s") == ("30s", False)
    assert (
        forecast._time_budget(history.ended_early, None)
        == forecast._time_budget(history.ended_early, "31s")
        == ("", True)
    )
    before = {cell: {e.trial.id: len(e.curve) for e in search.entries} for (cell, _), search in ended.searches.items()}
    searched = {cell: sum(e.outcome.reason != BUDGET for e in s.search) for (cell, _), s in ended.searches.items()}
    assert {cell: known.num_searched for (cell, _), known in search_progress(history, True).items()} == searched
    foreseen = {
        cell: remaining_epochs(plan, cell, known) for (cell, _), known in search_progress(history, True).items()
    }
    full = Scene(None).run(space, tmp_path)
    for (cell, _), search in full.searches.items():
        more = sum(len(e.curve) - before[cell].get(e.trial.id, 0) for e in search.entries)
        assert more <= foreseen[cell].max_total
    assert search_progress(read_history(tmp_path / "sweep"))[cell, 0].num_finals == 2


def make_setting(**changes) -> Setting:
    values = {
        "model": "m",
        "task": "t",
        "method": "adapter",
        "precision": "fp32",
        "max_length": 128,
        "train_examples": 0,
    }
    return Setting(**{**values, "device": "2 CPU cores", "per_device": 1, **changes})


def test_an_epoch_takes_what_it_took_and_else_goes_by_tokens_of_its_kind():
    sizes = {"t": 1000.0, "u": 3000.0, "v": None}

    def tokens(setting):
        return sizes[setting.task]

    found = {
        make_setting(): Throughput(epochs=4, seconds=8.0),
        make_setting(method="full"): Throughput(epochs=1, seconds=50.0),
    }
    assert expected(make_setting(), found, tokens) == (2.0, True)
    assert expected(make_setting(task="u"), found, tokens) == (6.0, False)
    assert expected(make_setting(task="u", method="lora"), found, tokens) == (6.0, False)
    assert expected(make_setting(task="u", method="full"), found, tokens) == (150.0, False)
    for unlike in ({"task": "v"}, {"device": "GPU"}, {"per_device": 4}, {"precision": "bf16"}, {"model": "n"}):
        assert expected(make_setting(**{"task": "u", **unlike}), found, tokens) is None


def write_ledger(folder, space, *, per_device=1, device="2 CPU cores", seconds=2.0, started=True):
    """Of a sweep whose only trial was trained for two epochs, by another sweep if it was not `started`."""
    from benchmarks.fake_sweep import make

    cell = space.cells[0]
    trial = make(space)(cell, {"lr": 1e-3, "batch_size": 8}, 0, "search")
    events = [{"event": "sweep", "manifest": {"device": device}}]
    events += [{"event": "lanes", "slots": 2, "per_device": per_device}] if per_device else []
    events += [{"event": "asked", "id": trial.id, "trial": trial.to_json()}]
    events += [{"event": "started", "id": trial.id}] if started else []
    points = [replace(p, seconds=seconds) for p in curve(trial)[:2]]
    events += [{"event": "progress", "id": trial.id, "progress": p.to_json()} for p in points]
    with closing(Ledger.open(folder)) as ledger:
        ledger.append(*map(event_from_json, events))


def test_seconds_of_an_epoch_are_those_of_the_ledgers_and_of_no_trial_that_was_only_re_used(tmp_path):
    space = make_space()
    write_ledger(tmp_path / "a", space, seconds=2.0)
    write_ledger(tmp_path / "b", space, seconds=4.0)
    write_ledger(tmp_path / "old", space, per_device=0)
    write_ledger(tmp_path / "cached", space, seconds=9.0, started=False)
    write_ledger(tmp_path / "gpus", space, device="8 GPUs", per_device=4)
    found = measured(tmp_path)
    assert {(s.device, s.per_device): p.mean for s, p in found.items()} == {("2 CPU cores", 1): 3.0, ("GPU", 4): 2.0}
    drive(space, tmp_path, name="first")
    drive(space, tmp_path, name="second")
    assert measured(tmp_path / "nothing") == {}


@pytest.fixture
def project(tmp_path):
    """A space on a tiny encoder in a folder, with a task in a table and a generated one."""
    model = write_tiny(tmp_path / "model", "bert")
    rows = "".join(f"{'w7 ' * (i % 30)}w{i % 2},{i % 2}\n" for i in range(300))
    (tmp_path / "data.csv").write_text("text,label\n" + rows)
    task = FileTask(name="mine", train="data.csv", text="text", label="label")
    space = Space(
        name="small",
        models=(str(model),),
        tasks=(task, "agreement"),
        methods=(method("full"), method("adapter", r=choice(4, 8))),
        search={"lr": choice(1e-3, 1e-4), "batch_size": choice(8, 16)},
        recipe=Recipe(epochs=4, patience=2, max_length=16),
        budget=Budget(trials=4, final_seeds=2, grace=1),
        folder=tmp_path,
    )
    return make_plan(space, RunOptions())


def test_tokens_of_an_epoch_are_those_that_are_then_trained(project, tmp_path):
    for task in project.space.tasks:
        loaded = task_loading.load(task, data_dir=None, folder=tmp_path, train_examples=0, test_examples=0)
        path = tokens.prepare(loaded, project.space.models[0], 16, tmp_path / "tokens")
        train = tokens.read(path).train
        found = count_tokens(task, project.space.models[0], project.space.recipe, None, tmp_path)
        assert found.examples == len(train)
        cut = tokens.summarise(path).cut["train"]
        assert found.cut.cut / found.cut.examples == pytest.approx(cut.cut / cut.examples, abs=0.1)
        # Which nine tenths of the texts are trained on is not looked up.
        assert found.tokens == pytest.approx(len(train.ids), rel=0.02)


def test_tokens_of_any_task_whose_files_are_here_are_known(project, tmp_path, monkeypatch):
    monkeypatch.setattr(nsmc_reviews, "THOUSANDS", (1, 2, 3))
    write(tmp_path / "nsmc", rows(3000), [("", 1), ("NA", 0)])
    model, recipe = project.space.models[0], project.space.recipe
    assert count_tokens("nsmc_100k", model, recipe, tmp_path, tmp_path).examples == 1800
    assert count_tokens("nsmc_100k", model, recipe, None, tmp_path) is None
    assert count_tokens("mrpc", model, recipe, tmp_path, tmp_path) is None
    assert count_tokens("mrpc", model, recipe, None, tmp_path) is None


@pytest.mark.parametrize("number", [20, 25, 300, 1001])
@pytest.mark.parametrize("most", [0, 20, 100])
@pytest.mark.parametrize("has_test", [True, False])
def test_examples_of_the_train_part_are_those_of_the_split(number, most, has_test):
    labels = [i % 2 for i in range(number)]
    if number == 20 and not has_test:
        return  # too few for two splits
    chosen = split(labels, labels if has_test else None, CLASSIFICATION, most, 0)
    assert train_examples(number, 1 + (not has_test), most) == len(chosen.train)


def test_what_is_not_on_this_machine_is_unknown(tmp_path):
    space = Space(
        name="far",
        models=("bert-base-uncased",),
        tasks=("mrpc",),
        methods=(method("full"),),
        search={"lr": choice(1e-3), "batch_size": choice(8)},
    )
    plan = make_plan(space, RunOptions())
    text = plan_text(plan, make_options(tmp_path, gpus=4, trials_per_device=0, budget="40h"))
    lines = {line[2:10].strip(): line[11:] for line in text.split("\n") if line[:2] == "  "}
    assert lines["tokens"] == "unknown for 1 of 1 pairs of model and task"
    assert lines["time"].startswith("unknown for 1 of 1 cells: --probe times it in about ")
    assert lines["time"].endswith(" s and the download of BERT-base")
    assert lines["asks for"].startswith("4 GPUs; as many trials on each as fill it")
    assert lines["budget"].startswith("40h: ")
    assert " unknown " in next(line for line in text.split("\n") if line.startswith("  full"))


def test_hours_follow_from_what_an_epoch_took_here(project, tmp_path):
    out = tmp_path / "runs"
    one = replace(project.space, tasks=("agreement",), methods=project.space.methods[:1])
    write_ledger(out / "earlier", one, seconds=3600.0)
    ahead = make_forecast(replace(project, space=one), make_options(out))
    (cell,) = one.cells
    assert ahead.epoch_seconds == {cell: (3600.0, True)}
    # 4 tries and 2 finals of 3 or 4 epochs; in_flight 2: trials 0 to 3 are judged by too few to be stopped.
    least, most = ahead.hours
    assert least == max((4 + 2) * 3 / 2, 2 * 1 + 3)
    assert most == pytest.approx((4 + 2) * 4 / 2 + (2 * 4 + 4) / 2)
    text = plan_text(replace(project, space=one), make_options(out))
    assert f"time     {least:.2g} h to at most {most:.2g} h of training" in text
    assert make_forecast(replace(project, space=one), make_options(out, trials_per_device=2)).hours is None


def test_no_schedule_that_never_idles_takes_longer_than_the_bound():
    assert makespan([(10.0, 10.0)], 4) == 10.0
    assert makespan([(6.0, 2.0), (6.0, 2.0)], 3) == pytest.approx(4 + 2 * 2 / 3)
    assert makespan([], 4) == 0


def test_a_time_budget_that_is_too_short_is_refused_before_anything_starts(project, tmp_path):
    out = tmp_path / "runs"
    one = replace(project, space=replace(project.space, tasks=("agreement",), methods=project.space.methods[:1]))
    check_budget(one, make_options(out, budget="1s"))
    write_ledger(out / "earlier", one.space, seconds=60.0)
    with pytest.raises(ValueError, match=r"--budget 1s: one configuration of each of 1 cells.*at least 4\.0 min here"):
        check_budget(one, make_options(out, budget="1s"))
    check_budget(one, make_options(out, budget="5m"))
    write_ledger(out / folder_name(one.space), one.space)
    check_budget(one, make_options(out, budget="1s"))


def test_a_preview_tells_what_is_done_and_writes_nothing(project, tmp_path):
    out = tmp_path / "runs"
    write_ledger(out / folder_name(project.space), project.space)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    text = plan_text(project, make_options(out))
    assert "done     0 of 24 trials have ended (none); 1 begun, to be continued; 0 of 4 cells finished" in text
    assert "asks for 2 cores, one trial on each, in a process of its own" in text
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_one_process_is_asked_for_where_trials_share_a_device(project, tmp_path):
    text = plan_text(project, make_options(tmp_path, trials_per_device=4))
    assert "2 cores, 4 trials on each (8 at once), in one process each" in text


@pytest.mark.parametrize(("gpus", "proposed"), [(8, None), (9, 3), (12, 3), (16, 4), (1000, 4)])
def test_a_plan_proposes_how_searches_use_all_devices(project, tmp_path, gpus, proposed):
    assert (len(project.space.cells), project.space.in_flight, project.space.budget.trials) == (4, 2, 4)
    text = plan_text(project, make_options(tmp_path, gpus=gpus, trials_per_device=1))
    wider = f"the searches use 8 of them at once, --set budget.in_flight={proposed} more" if proposed else ""
    assert wider in text
    assert ("in_flight" in text) == bool(proposed)


def test_a_plan_of_a_range_of_gpus_gives_the_hours_of_the_most_and_of_the_fewest(project, tmp_path):
    out = tmp_path / "runs"
    one = replace(project.space, tasks=("agreement",), methods=project.space.methods[:1])
    plan = replace(project, space=one)
    write_ledger(out / "earlier", one, device=device_name(8, 1), per_device=1)

    def hours(**given):
        return make_forecast(plan, make_options(out, trials_per_device=1, **given)).hours

    least, most = hours(gpus=8, least_gpus=1)
    assert (least, most) == (hours(gpus=8)[0], hours(gpus=1)[1])
    assert most > hours(gpus=8)[1]
    text = plan_text(plan, make_options(out, gpus=8, least_gpus=1, trials_per_device=1))
    assert "asks for 1 to 8 GPUs, one trial on each" in text
    assert "of training on 1 to 8 GPUs, by" in text
    text = plan_text(plan, make_options(out, gpus=8, least_gpus=1, trials_per_device=2))
    assert "asks for 1 to 8 GPUs, 2 trials on each (2 at once, all that can)" in text


def test_a_gpu_is_filled_as_the_driver_would_fill_it(project, tmp_path):
    machine = make_forecast(project, make_options(tmp_path, gpus=2, trials_per_device=0)).machine
    assert machine.devices == 2
    assert 1 <= machine.per_device <= 64
    assert not math.isnan(machine.slots)
