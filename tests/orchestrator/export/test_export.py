"""An exported model, loaded by those for whom it is written, gives the recorded test predictions again."""

import argparse
import csv
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orchestrator import reproduce
from orchestrator.export import writing
from orchestrator.search.predictions import write_predictions
from orchestrator.verbs import export, predict
from tests.fixtures.encoders import write_tiny
from tests.fixtures.exported_sweep import CLASSES, write_sweep
from trainables.backbone.families import FAMILIES
from trainables.methods import METHODS

KINDS = {
    **dict.fromkeys(("lora", "rslora", "dora", "pissa", "vera", "adalora", "dylora", "ia3", "layer_norm"), "peft"),
    **dict.fromkeys(("lora_fa", "lora_plus", "loha", "lokr", "miss", "vb_lora", "c3a", "oft", "hra", "road"), "peft"),
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

    family, tokenizer = FAMILIES[model.config.model_type], AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(
        texts,
        pairs,
        truncation="longest_first",
        max_length=max_length,
        padding=True,
        return_token_type_ids=pairs is not None,
        return_tensors="pt",
    )
    if family.first_position:
        # The small models' first token has the id that RoBERTa has for padding, so transformers would not count it.
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None] + family.first_position
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


def texts_of(folder):
    return [row["note"] for row in rows_of(folder / "test.csv")]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_predicts_again_what_was_recorded(name, tiny_model, tmp_path, capsys):
    base = tiny_model("bert" if len(name) % 2 else "roberta").path
    sweep = write_sweep(tmp_path, name, str(base))
    to = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", to) == 0
    assert "60 of 60 test predictions are the recorded ones" in capsys.readouterr().out
    kind = json.loads((to / "export.json").read_text(encoding="utf-8"))["kind"]
    assert kind == KINDS.get(name, "own")
    if kind != "own":
        model = load_with_others(to, base)
        assert type(model).__name__.startswith("Peft") == (kind == "peft")
        logits = logits_of(model, to, texts_of(tmp_path), None)
        assert logits.argmax(1).tolist() == sweep.predictions[1]


def test_labels_and_probabilities_are_those_of_peft(tiny_bert, tmp_path):
    sweep = write_sweep(tmp_path, "lora", str(tiny_bert.path))
    to = tmp_path / "export"
    assert call(export, sweep.folder, sweep.cell, "--to", to) == 0
    assert call(predict, to, tmp_path / "test.csv", "--to", tmp_path / "out.csv") == 0
    rows, classes = rows_of(tmp_path / "out.csv"), sorted(CLASSES)
    assert [row["label"] for row in rows] == [classes[int(index)] for index in sweep.predictions[1]]
    model = load_with_others(to, tiny_bert.path)
    shares = torch.from_numpy(logits_of(model, to, texts_of(tmp_path), None)).softmax(1).numpy()
    ours = np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])
    assert np.abs(shares - ours).max() < 1e-4
    assert model.config.id2label == dict(enumerate(classes))


@pytest.mark.parametrize(("name", "most_deviations"), [("lora", 1e4), ("full", 1e4), ("adapter", 1e4), ("lora", 1.0)])
def test_values_are_in_the_unit_of_the_files(name, most_deviations, tiny_bert, tmp_path, capsys, monkeypatch):
    """Also where the mean is so far from zero that the exported head has to stay standardised."""
    monkeypatch.setattr(writing, "MOST_DEVIATIONS", most_deviations)
    sweep = write_sweep(tmp_path, name, str(tiny_bert.path), regression=True, pair=True)
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
    in_units = (name, most_deviations) in (("lora", 1e4), ("full", 1e4))
    text = (to / "README.md").read_text(encoding="utf-8")
    assert ("in the unit of the task's files" in text) == in_units
    if in_units:
        model = load_with_others(to, tiny_bert.path)
        rows = rows_of(tmp_path / "test.csv")
        texts, pairs = ([row[column] for row in rows] for column in ("note", "reply"))
        assert np.abs(logits_of(model, to, texts, pairs)[:, 0] - recorded).max() < 0.01
        assert model.config.problem_type == "regression"


@pytest.mark.parametrize(
    "family",
    ["distilbert", "electra", "xlm-roberta", "camembert", "llama", "qwen3", "gemma2", "olmo2", "phi3", "gpt2"],
)
@pytest.mark.parametrize("name", ["lora", "full"])
def test_every_family_is_loaded_by_others(name, family, tiny_model, tmp_path):
    base = tiny_model(family).path
    sweep = write_sweep(tmp_path, name, str(base), **({"targets": "all"} if name == "lora" else {}))
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "export") == 0
    model = load_with_others(tmp_path / "export", base)
    assert logits_of(model, tmp_path / "export", texts_of(tmp_path), None).argmax(1).tolist() == sweep.predictions[1]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("layer_norm", "gemma2"),
        ("ia3", "gemma3_text"),
        ("dora", "phi3"),
        ("ia3", "phi3"),
        ("ia3", "gpt2"),
        ("dora", "gpt2"),
        ("bitfit", "gpt2"),
        ("layer_norm", "olmo2"),
    ],
)
def test_norms_of_outputs_and_maps_of_one_module_are_exported_where_they_belong(name, family, tiny_model, tmp_path):
    base = tiny_model(family).path
    sweep = write_sweep(tmp_path, name, str(base))
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "export") == 0
    model = load_with_others(tmp_path / "export", base)
    assert logits_of(model, tmp_path / "export", texts_of(tmp_path), None).argmax(1).tolist() == sweep.predictions[1]


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
        torch.manual_seed(7)
        model = load_with_others(to, base)
        assert logits_of(model, to, texts_of(tmp_path), None).argmax(1).tolist() == sweep.predictions[1]
    else:
        assert "pooler.dense.weight" in load_file(to / "tensors.safetensors")


def test_the_best_final_on_the_validation_split_is_exported_and_said(tiny_bert, tmp_path, capsys):
    base = tiny_bert.path
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
        "search over 1 configuration on",
        "python -m orchestrator.run --space moods.py",
        "torch ",
    ):
        assert phrase in text
    again = tmp_path / "other"
    assert call(export, sweep.folder, sweep.cell, "--to", again, "--seed", 1) == 0
    assert "the best of them" not in (again / "README.md").read_text(encoding="utf-8")


def test_the_examples_of_the_card_run(tiny_bert, tmp_path):
    for name, last, pair in (("lora", "logits", True), ("full", "logits", False), ("pfeiffer", "predictions", False)):
        place = tmp_path / name
        place.mkdir()
        sweep = write_sweep(place, name, str(tiny_bert.path), pair=pair)
        assert call(export, sweep.folder, sweep.cell, "--to", place / "export") == 0
        card = (
            (place / "export" / "README.md").read_text(encoding="utf-8").replace("THIS_FOLDER", str(place / "export"))
        )
        lines = [line[4:] for line in card.splitlines() if line.startswith("    ") and "peft-sweep" not in line]
        second = [row["reply"] for row in rows_of(place / "test.csv")] if pair else None
        space = {"texts": texts_of(place), "second_texts": second}
        exec("\n".join(lines), space)
        found = space[last].argmax(1).tolist() if last == "logits" else space[last]
        assert found == sweep.predictions[1]


def test_a_final_that_was_not_kept_is_trained_once_more_on_demand(tiny_bert, tmp_path, capsys):
    sweep = write_sweep(tmp_path, "lora", str(tiny_bert.path))
    record, (trial,) = reproduce.read_cell(sweep.folder, sweep.cell), sweep.finals
    _, test = reproduce.train(record, trial, tmp_path / "checkpoints")
    write_predictions(sweep.folder, trial.id, test)
    shutil.rmtree(sweep.folder / "checkpoints")
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "export", "--retrain") == 0
    assert "60 of 60 test predictions are the recorded ones" in capsys.readouterr().out
    assert "trained once more for it" in (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
