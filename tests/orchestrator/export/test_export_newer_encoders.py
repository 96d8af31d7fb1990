"""Exports of encoders whose query, key and value maps are one module, and of models without biases, as others load them."""

import json

import pytest

from orchestrator.verbs import export
from tests.fixtures.exported_sweep import write_sweep
from tests.orchestrator.export.test_export import call, load_with_others, logits_of, texts_of

PEFT = [
    ("lora", {}),
    ("lora", {"targets": "all"}),
    ("rslora", {"targets": "all"}),
    ("dora", {}),
    ("pissa", {"targets": "all"}),
    ("ia3", {}),
    ("layer_norm", {}),
]


def exported(name, base, folder, settings=None):
    """A sweep with one final of this method, and its export."""
    sweep = write_sweep(folder, name, str(base), **(settings or {}))
    assert call(export, sweep.folder, sweep.cell, "--to", folder / "export") == 0
    return sweep, folder / "export"


@pytest.mark.parametrize(("name", "settings"), [*PEFT, ("full", {}), ("fish_mask", {})])
def test_peft_and_transformers_predict_the_same_with_modernbert(name, settings, tiny_model, tmp_path):
    base = tiny_model("modernbert").path
    sweep, to = exported(name, base, tmp_path, settings)
    model = load_with_others(to, base)
    assert type(model).__name__.startswith("Peft") == ((name, settings) in PEFT)
    assert logits_of(model, to, texts_of(tmp_path), None).argmax(1).tolist() == sweep.predictions[1]


@pytest.mark.parametrize(("name", "settings"), [("lora", {"targets": "all"}), ("full", {})])
@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_peft_and_transformers_predict_the_same_with_mpnet_and_deberta(family, name, settings, tiny_model, tmp_path):
    base = tiny_model(family).path
    sweep, to = exported(name, base, tmp_path, settings)
    model = load_with_others(to, base)
    assert logits_of(model, to, texts_of(tmp_path), None).argmax(1).tolist() == sweep.predictions[1]


@pytest.mark.parametrize(
    ("family", "name"),
    [("modernbert", "vera"), ("modernbert", "adalora"), ("modernbert", "bitfit"), ("llama", "bitfit")],
)
def test_what_others_cannot_load_is_exported_in_our_own_layout(family, name, tiny_model, tmp_path, capsys):
    _, to = exported(name, tiny_model(family).path, tmp_path)
    assert json.loads((to / "export.json").read_text(encoding="utf-8"))["kind"] == "own"
    assert "60 of 60 test predictions are the recorded ones" in capsys.readouterr().out


def test_the_norms_of_a_decoder_are_exported_where_they_belong(tiny_model, tmp_path):
    base = tiny_model("llama").path
    sweep, to = exported("layer_norm", base, tmp_path)
    model = load_with_others(to, base)
    assert logits_of(model, to, texts_of(tmp_path), None).argmax(1).tolist() == sweep.predictions[1]
