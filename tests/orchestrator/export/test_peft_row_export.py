"""The final of a row of peft is exported as the folder that peft saves, and predicts what was recorded."""

import json

import pytest
import torch

from orchestrator.planning import peft_check
from orchestrator.verbs import export, predict
from search_spaces.peft_rows import peft_row
from search_spaces.records import Progress
from tests.fixtures import exported_sweep
from tests.orchestrator.export.test_export import call, load_with_others, logits_of, rows_of, texts_of
from trainables.peft_training.networks import set_values, values_of
from trainables.peft_training.peft_engine import PeftEngine
from trainables.worker import checkpoint

CONFIGS = {
    "loha": {"peft_type": "LOHA", "r": 2, "target_modules": ["query"]},
    "adalora": {"peft_type": "ADALORA", "tinit": 1, "tfinal": 2},
    "prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3},
}


def write_checkpoint(trial, model, data, folder, best_score):
    """As the fixture's, by peft's engine."""
    engine = PeftEngine(model, torch.device("cpu"))
    state = engine.add_trial(trial, data)
    network = engine._trial.network
    noise = torch.randn(state.best.shape, generator=torch.Generator().manual_seed(3))
    set_values(network, values_of(network) + 0.3 * noise)
    state.best = values_of(network)
    result = engine.test(trial.id)
    progress = [Progress(epoch=1, score=best_score, loss=0.5, best_score=best_score, best_epoch=1, seconds=1.0)]
    saved = checkpoint.Checkpoint(epoch=1, done=True, progress=progress, tensors={"best": state.best}, test=result)
    checkpoint.write(folder / trial.id, trial, saved)
    return result


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_export_of_a_row_is_the_folder_that_peft_loads(name, tiny_bert, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peft_check, "_run", lambda jobs: [{"trained": [100]} for _ in jobs])
    monkeypatch.setattr(exported_sweep, "SMALL", {name: {}})
    monkeypatch.setattr(exported_sweep, "method", lambda label: peft_row(CONFIGS[label], label=label))
    monkeypatch.setattr(exported_sweep, "_write_checkpoint", write_checkpoint)
    sweep = exported_sweep.write_sweep(tmp_path, name, str(tiny_bert.path))
    to = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", to) == 0
    assert "60 of 60 test predictions are the recorded ones" in capsys.readouterr().out
    assert json.loads((to / "adapter_config.json").read_text("utf-8"))["peft_type"] == CONFIGS[name]["peft_type"]
    assert not list(to.glob("*.bin"))
    logits = logits_of(load_with_others(to, tiny_bert.path), to, texts_of(tmp_path), None)
    assert logits.argmax(1).tolist() == sweep.predictions[1]
    assert call(predict, to, tmp_path / "test.csv", "--to", tmp_path / "out.csv") == 0
    classes = sorted(exported_sweep.CLASSES)
    assert [classes.index(row["label"]) for row in rows_of(tmp_path / "out.csv")] == sweep.predictions[1]
