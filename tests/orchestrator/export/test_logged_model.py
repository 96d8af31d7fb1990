"""An exported model in MLflow: loaded by `mlflow.pyfunc` it predicts what was recorded, and it is added once."""

import argparse
import csv
import shutil
from contextlib import closing

import mlflow
import pandas as pd
import pytest

from orchestrator.ledger import Ledger
from orchestrator.tracking.tracker import deliver_all
from orchestrator.verbs import export, log_model
from search_spaces import keys
from tests.fixtures.encoders import write_tiny
from tests.fixtures.exported_sweep import CLASSES, write_sweep
from tests.fixtures.tracking_sweep import client


def call(verb, *words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def exported(schema, tmp_path):
    """A store with a sweep, the sweep, and its exported winner."""
    base = write_tiny(tmp_path / "bert", "bert")
    sweep = write_sweep(tmp_path, "lora", str(base))
    uri = f"sqlite:///{shutil.copy(schema, tmp_path)}"
    with closing(Ledger.open(sweep.folder)) as ledger:
        deliver_all(uri, tmp_path / "artifacts", sweep.folder, ledger.records)
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "winner") == 0
    return uri, sweep, tmp_path


def test_the_logged_model_predicts_what_was_recorded(exported, monkeypatch, capsys):
    uri, sweep, folder = exported
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert call(log_model, folder / "winner") == 0
    address = capsys.readouterr().out.split('"')[1]
    with (folder / "test.csv").open(newline="", encoding="utf-8") as file:
        texts = pd.DataFrame({"note": [row["note"] for row in csv.DictReader(file)]})
    model = mlflow.pyfunc.load_model(address)
    found = model.predict(texts)
    names = sorted(CLASSES)
    assert [names.index(label) for label in found["label"]] == sweep.predictions[1]
    assert found.drop(columns="label").sum(axis=1).to_list() == pytest.approx([1.0] * len(texts))
    assert model.metadata.signature.inputs.input_names() == ["note"]
    assert model.metadata.signature.outputs.input_names() == ["label", *(f"probability_{name}" for name in names)]
    assert call(log_model, folder / "winner") == 0
    assert capsys.readouterr().out == f'was there already: mlflow.pyfunc.load_model("{address}")\n'
    (run,) = client(uri).search_runs(["1"], f"tags.`{keys.TRIAL}` = '{sweep.finals[0].id}'")
    assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == [address]
    logged = client(uri).get_logged_model(address.removeprefix("models:/"))
    assert {metric.key: metric.value for metric in logged.metrics}["test/accuracy"] == run.data.metrics["test/accuracy"]


def test_a_store_without_the_sweep_is_refused(exported, schema, tmp_path):
    other = f"sqlite:///{shutil.copy(schema, tmp_path / 'other.db')}"
    with pytest.raises(ValueError, match=r"has no run of the final .*--tracking-uri"):
        call(log_model, exported[2] / "winner", "--tracking-uri", other)
