"""An exported model, loaded by those for whom it is written, gives the recorded test predictions again."""

import argparse
import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orchestrator.verbs import export, predict
from tests.fixtures.encoders import write_tiny
from tests.fixtures.exported_sweep import CLASSES, write_sweep
from trainables.methods import METHODS

KINDS = {
    **dict.fromkeys(("lora", "rslora", "dora", "pissa", "vera", "adalora", "dylora", "ia3", "layer_norm"), "peft"),
    **dict.fromkeys(
        ("full", "top_layers", "bitfit", "bitfit_small", "threshold_mask", "fish_mask", "lt_sft", "diff_pruning"),
        "transformers",
    ),
    **dict.fromkeys(("child_tuning_f", "child_tuning_d"), "transformers"),
}


def call(verb, *words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(word) for word in words]))


def logits_of(model, folder, texts, pairs, max_length=24):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(
        texts, pairs, truncation="longest_first", max_length=max_length, padding=True, return_tensors="pt"
    )
    inputs.pop("token_type_ids", None) if model.config.model_type in ("roberta", "distilbert") else None
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


def load_with_others(folder, base):
    """The export as peft or transformers load it."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    if not (folder / "adapter_config.json").exists():
        return AutoModelForSequenceClassification.from_pretrained(folder)
    from peft import PeftModel

    config = AutoConfig.from_pretrained(folder)
    return PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base, config=config), folder)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_predicts_again_what_was_recorded(name, tmp_path, capsys):
    family = "bert" if len(name) % 2 else "roberta"
    base = write_tiny(tmp_path / "model", family)
    sweep = write_sweep(tmp_path, name, str(base))
    to = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", to) == 0
    assert "60 of 60 test predictions are the recorded ones" in capsys.readouterr().out
    assert call(predict, to, tmp_path / "test.csv", "--to", tmp_path / "out.csv") == 0
    rows, recorded = rows_of(tmp_path / "out.csv"), sweep.predictions[1]
    classes = sorted(CLASSES)
    assert [row["label"] for row in rows] == [classes[int(index)] for index in recorded]
    ours = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
    assert KINDS.get(name, "own") == ("own" if not (to / "config.json").exists() else KINDS.get(name))
    if name in KINDS:
        texts = [row["note"] for row in rows_of(tmp_path / "test.csv")]
        model = load_with_others(to, base)
        assert type(model).__name__.startswith("Peft") == (KINDS[name] == "peft")
        logits = logits_of(model, to, texts, None)
        assert logits.argmax(1).tolist() == recorded
        shares = torch.from_numpy(logits).softmax(1).numpy()
        assert np.abs(shares - ours).max() < 1e-4
        assert model.config.id2label == dict(enumerate(classes))


@pytest.mark.parametrize("name", ["lora", "full", "adapter"])
def test_values_are_in_the_unit_of_the_files(name, tmp_path, capsys):
    base = write_tiny(tmp_path / "model", "bert")
    sweep = write_sweep(tmp_path, name, str(base), regression=True, pair=True)
    to = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", to) == 0
    assert "60 test predictions differ from the recorded ones by at most" in capsys.readouterr().out
    assert call(predict, to, tmp_path / "test.csv") == 0
    header, *values = capsys.readouterr().out.splitlines()
    recorded = np.array(sweep.predictions[1])
    assert header == "value"
    assert 1850 < recorded.mean() < 1960
    assert recorded.std() > 0.1
    assert np.abs(np.array([float(value) for value in values]) - recorded).max() < 0.01
    if name != "adapter":
        rows = rows_of(tmp_path / "test.csv")
        model = load_with_others(to, base)
        texts, pairs = ([row[column] for row in rows] for column in ("note", "reply"))
        assert np.abs(logits_of(model, to, texts, pairs)[:, 0] - recorded).max() < 0.01
        assert model.config.problem_type == "regression"


@pytest.mark.parametrize("family", ["distilbert", "electra", "xlm-roberta", "camembert"])
@pytest.mark.parametrize("name", ["lora", "full"])
def test_every_family_is_loaded_by_others(name, family, tmp_path):
    base = write_tiny(tmp_path / "model", family)
    sweep = write_sweep(tmp_path, name, str(base), **({"targets": "all"} if name == "lora" else {}))
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "export") == 0
    texts = [row["note"] for row in rows_of(tmp_path / "test.csv")]
    model = load_with_others(tmp_path / "export", base)
    assert logits_of(model, tmp_path / "export", texts, None).argmax(1).tolist() == sweep.predictions[1]


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_a_pooler_that_the_pretrained_files_lack_is_exported(name, tmp_path):
    """transformers would draw another one at random whenever it loads the pretrained model."""
    import transformers

    base = write_tiny(tmp_path / "model", "bert")
    transformers.BertModel.from_pretrained(base, add_pooling_layer=False).save_pretrained(base)
    sweep = write_sweep(tmp_path, name, str(base))
    to = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", to) == 0
    if name == "lora":
        texts = [row["note"] for row in rows_of(tmp_path / "test.csv")]
        torch.manual_seed(7)
        model = load_with_others(to, base)
        assert logits_of(model, to, texts, None).argmax(1).tolist() == sweep.predictions[1]
    else:
        assert "pooler.dense.weight" in load_file(to / "tensors.safetensors")


def test_the_best_final_on_the_validation_split_is_exported_and_said(tmp_path, capsys):
    base = write_tiny(tmp_path / "model", "bert")
    sweep = write_sweep(tmp_path, "lora", str(base), seeds=2)
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "export") == 0
    assert "seed 2, accuracy" in capsys.readouterr().out
    text = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    for phrase in (
        "library_name: peft",
        f'base_model: "{base}"',
        '0 "angry", 1 "calm", 2 "neither, nor"',
        "95 % interval over the choice of test examples",
        "with 2 seeds",
        "the best of them on the validation split",
        sweep.finals[1].split,
        sweep.finals[1].weights,
        "search over 1 configurations",
        "python -m orchestrator.run --space moods.py",
        "torch ",
    ):
        assert phrase in text
    again = tmp_path / "other"
    assert call(export, sweep.folder, sweep.cell, "--to", again, "--seed", 1) == 0
    assert "the best of them" not in (again / "README.md").read_text(encoding="utf-8")


def test_the_examples_of_the_card_run(tmp_path):
    base = write_tiny(tmp_path / "model", "bert")
    for name, last in (("lora", "logits"), ("full", "logits"), ("pfeiffer", "predictions")):
        place = tmp_path / name
        place.mkdir()
        sweep = write_sweep(place, name, str(base))
        assert call(export, sweep.folder, sweep.cell, "--to", place / "export") == 0
        card = (
            (place / "export" / "README.md").read_text(encoding="utf-8").replace("THIS_FOLDER", str(place / "export"))
        )
        lines = [line[4:] for line in card.splitlines() if line.startswith("    ") and "peft-sweep" not in line]
        space = {"texts": [row["note"] for row in rows_of(place / "test.csv")]}
        exec("\n".join(lines), space)
        found = space[last].argmax(1).tolist() if last == "logits" else space[last]
        assert found == sweep.predictions[1]
