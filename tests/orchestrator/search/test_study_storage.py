"""The searches as Optuna studies in a file: what a dashboard would show, and the same file again after a restart."""

import optuna
import pytest

from benchmarks.fake_sweep import make_space, make_sweep
from benchmarks.fake_worker import FakeResident
from orchestrator.search.study_storage import FILE, write_studies


@pytest.fixture
def sweep(tmp_path):
    """A finished sweep of two cells."""
    sweep = make_sweep(make_space(6, 4, in_flight=2, cells=2), tmp_path / "sweep")
    while (trial := sweep.next_trial()) != "finished":
        train(sweep, trial)
    yield sweep
    sweep._ledger.close()


def train(sweep, trial):
    fake = FakeResident(trial)
    while True:
        fake.num_requested += 1
        fake.train()
        report = fake.next_report()
        if not sweep.record(trial.id, report.progress, report.outcome, report.test):
            return


def read(folder):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / FILE)))
    return {
        study.study_name: study
        for study in (
            optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)
        )
    }


def test_a_study_has_the_configurations_of_its_search_with_their_scores(sweep, tmp_path):
    write_studies(tmp_path / FILE, sweep.searches.values(), sweep._ledger.records, {"t0": "accuracy"})
    studies = read(tmp_path)
    assert list(studies) == ["m/t0/adapter", "m/t1/adapter"]
    for search, study in zip(sweep.searches.values(), studies.values(), strict=True):
        assert [trial.params for trial in study.trials] == [
            {name: entry.trial.hyperparameters[name] for name in ("r", "lr", "batch_size")} for entry in search.search
        ]
        assert study.best_value == search.winner.outcome.best_score
        for trial, entry in zip(study.trials, search.search, strict=True):
            assert trial.state.name == {"DONE": "COMPLETE", "STOPPED": "PRUNED"}[entry.outcome.state]
            assert trial.intermediate_values == {e: entry.curve.best_at(e) for e in range(1, len(entry.curve) + 1)}
            assert trial.datetime_start <= trial.datetime_complete
    assert studies["m/t0/adapter"].metric_names == ["validation accuracy"]


def test_the_same_ledger_gives_the_same_studies_again(sweep, tmp_path):
    def written(name):
        (tmp_path / name).mkdir()
        write_studies(tmp_path / name / FILE, sweep.searches.values(), sweep._ledger.records, {})
        return {key: study.trials for key, study in read(tmp_path / name).items()}

    first = written("a")
    assert written("b") == first
    write_studies(tmp_path / "a" / FILE, sweep.searches.values(), sweep._ledger.records, {})
    assert {key: study.trials for key, study in read(tmp_path / "a").items()} == first
    assert [path.name for path in (tmp_path / "a").iterdir()] == [FILE]
