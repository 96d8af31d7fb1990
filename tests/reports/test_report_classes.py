"""A report on the user's own classes: they are listed with their counts, and the class of the score is named beside it."""

import pytest

from reports.data.store import read
from reports.sections import answer, protocol, results
from reports.statistics.analysis import analyze
from tests.fixtures import report_store
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep

NOTES = ("2 classes in urgent.csv: alarm 6, fine 54", "'N' and 'No' are different classes; if they are one, ...")


@pytest.fixture
def urgent(tmp_path, monkeypatch):
    for table, value in (("TITLES", "urgent"), ("SCORES", "f1"), ("SIZES", (40, 10, 10)), ("MAJORITY", 0.0)):
        monkeypatch.setitem(getattr(report_store, table), "urgent", value)
    record = manifest(["minilm"], ["urgent"], ["adapter", "full"])
    record["tasks"]["urgent"] |= {"notes": list(NOTES), "positive": "alarm"}
    trials, won = [], {}
    for label, score in (("adapter", 80.0), ("full", 60.0)):
        cell = f"minilm/urgent/{label}"
        trials += [FakeTrial(cell=cell, name=label), *(final(cell, seed, score + seed) for seed in range(3))]
        won[cell] = label
    uri = new_store(tmp_path)
    write_sweep(uri, record, trials, won)
    return analyze(read(uri, "sweep-1"))


def test_the_class_of_the_score_is_named_wherever_the_score_stands(urgent):
    named = "f1 of 'alarm'"
    for section in (answer, results, protocol):
        assert named in section.text(urgent), section.__name__


def test_classes_with_their_counts_and_doubtful_spellings_are_in_the_report(urgent):
    text = protocol.text(urgent)
    assert "urgent: 2 classes in urgent.csv: alarm 6, fine 54" in text
    assert "different classes; if they are one" in text


def test_a_constant_prediction_of_the_commonest_class_scores_nothing(urgent):
    (line,) = [line for line in results.text(urgent).splitlines() if "Constant prediction" in line and line[0] == "|"]
    assert "0.00" in line
