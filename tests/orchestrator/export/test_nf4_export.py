"""Exports of finals that were trained on a backbone in 4 bits: over the original weights, and quantised again to predict."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.export.predictor import Predictor
from orchestrator.verbs import export
from tests.fixtures.encoders import write_tiny
from tests.fixtures.exported_sweep import RECIPE, write_sweep
from tests.orchestrator.export.test_export import call, texts_of
from trainables.tasks.task_data import Texts

pytest.importorskip("bitsandbytes", reason="NF4 needs bitsandbytes: pip install -e '.[nf4]'")

NF4 = replace(RECIPE, precision="nf4", nf4_compute="fp32")
# So wide that rows are whole blocks: others bitsandbytes itself, as transformers uses it, gets wrong on CPUs with AVX-512.
WIDE = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture(autouse=True)
def no_packed_weights(monkeypatch):
    """Without gradients, bitsandbytes on a CPU with AVX-512 BF16 multiplies packed weights in bf16, whatever it is asked for."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


def run_card(folder, texts):
    """What the example in the card computes."""
    card = (folder / "README.md").read_text(encoding="utf-8").replace("THIS_FOLDER", str(folder))
    lines = [line[4:] for line in card.splitlines() if line.startswith("    ") and "peft-sweep" not in line]
    space = {"texts": texts}
    with torch.no_grad():
        exec("\n".join(lines), space)
    return space["logits"].detach().numpy()


def ours(folder, texts):
    return Predictor(folder).outputs(Texts(first=texts, second=None, labels=[0.0] * len(texts)))


@pytest.mark.parametrize(
    ("name", "family", "loaded_with"),
    [
        ("lora", "bert", "PeftModel"),
        ("lora", "llama", "PeftModel"),
        ("dora", "bert", "PeftModel"),
        ("pissa", "bert", "PeftModel"),
        ("bitfit", "bert", "AutoModelForSequenceClassification"),
        ("adapter", "bert", ""),
    ],
)
def test_an_export_predicts_what_was_recorded_and_the_libraries_compute_the_same(
    name, family, loaded_with, tmp_path, capsys
):
    sweep = write_sweep(tmp_path, name, str(write_tiny(tmp_path / "wide", family, **WIDE)), recipe=NF4)
    folder = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", folder) == 0
    assert "60 of 60 test predictions are the recorded ones" in capsys.readouterr().out
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "stored in 4 bits (NF4, blocks of 64, double quantisation), matrix products in fp32" in card
    texts = texts_of(tmp_path)
    wanted = ours(folder, texts)
    assert wanted.argmax(1).tolist() == sweep.predictions[1]
    if loaded_with:
        assert f"{loaded_with}.from_pretrained" in card
        assert np.abs(run_card(folder, texts) - wanted).max() < 1e-4


def test_blocks_that_transformers_lacks_are_said(tmp_path):
    model = write_tiny(tmp_path / "wide", "bert", **WIDE)
    sweep = write_sweep(tmp_path, "lora", str(model), recipe=replace(NF4, nf4_block_size=256))
    folder = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", folder) == 0
    assert "trained with blocks of 256" in (folder / "README.md").read_text(encoding="utf-8")
    texts = texts_of(tmp_path)
    assert ours(folder, texts).argmax(1).tolist() == sweep.predictions[1]
    assert np.abs(run_card(folder, texts) - ours(folder, texts)).max() > 1e-4


def test_without_bitsandbytes_an_export_says_what_to_install(tiny_bert, tmp_path, monkeypatch):
    sweep = write_sweep(tmp_path, "lora", str(tiny_bert.path), recipe=NF4)
    folder = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", folder) == 0
    monkeypatch.setattr("orchestrator.planning.preflight.find_spec", lambda name: None)
    with pytest.raises(EnvironmentUnfit, match=r"pip install 'peft-sweep\[nf4\]'"):
        Predictor(folder)
    assert "bitsandbytes" in sys.modules  # loaded before: the check does not import it
