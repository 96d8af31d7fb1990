"""Rows of peft in a space and in a plan: how they are written, what is refused and why, what they train."""

import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.planning import peft_check
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.space_files import load_space
from orchestrator.planning.sweep_manifest import titles
from orchestrator.run_options import RunOptions
from search_spaces.language import Budget, Recipe, Space, choice, method
from search_spaces.peft_rows import field_value, peft_row
from tests.fixtures.encoders import write_tiny
from tests.fixtures.trials import make_data
from tests.trainables.peft_training.test_peft_engine import peft_trial, write_other
from trainables.backbone.models import resolve
from trainables.methods.peft_row import PeftRow
from trainables.peft_training import measure
from trainables.peft_training.peft_engine import PeftEngine

HEADS = [(2, False)]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("bert") / "bert", "bert")


@pytest.fixture
def in_process(monkeypatch):
    """The check of a plan, without a process of its own; returns the jobs."""
    seen = []

    def run(jobs):
        answers = []
        for each in json.loads(json.dumps(jobs)):
            seen.append(each)
            try:
                answers.append({"trained": measure.check(each["settings"], Path(each["model"]), each["outputs"])})
            except ValueError as error:
                answers.append({"error": str(error)})
        return answers

    monkeypatch.setattr(peft_check, "_run", run)
    return seen


def space_of(model, *rows):
    return Space(
        name="mine",
        models=(str(model),),
        tasks=("agreement",),
        methods=rows,
        search={"lr": 1e-3, "batch_size": 8},
        recipe=Recipe(epochs=2, max_length=64),
        budget=Budget(trials=2),
    )


def test_a_row_keeps_lists_and_nothing_as_json_and_gives_them_back():
    row = peft_row(
        {"peft_type": "loha", "r": choice(4, 8), "target_modules": ["query"], "layers_pattern": None}, lr=1e-3
    )
    assert (row.name, row.label, row.searched) == ("peft", "peft_loha", {"r": choice(4, 8)})
    fields = PeftRow(config=row.fixed).fields
    assert fields == {"target_modules": ["query"], "layers_pattern": None, "lr": 1e-3}
    assert field_value("[a-z]+") == "[a-z]+"


@pytest.mark.parametrize(
    ("config", "settings", "phrase"),
    [
        ({"r": 8}, {}, "must name the configuration"),
        ("LORA", {}, "takes a dict"),
        ({"peft_type": "LORA", "lr": 1e-3}, {}, r"write peft_row\(\{\.\.\.\}, lr=\.\.\.\)"),
        ({"peft_type": "LORA", "r": 8}, {"r": 4}, "given twice"),
        ({"peft_type": "LORA", "r": object()}, {}, "must be a number"),
        ({"peft_type": "LORA", "a b": 1}, {}, "is no name of a field"),
    ],
)
def test_what_cannot_be_a_row_is_refused_in_the_space(config, settings, phrase):
    with pytest.raises(ValueError, match=phrase):
        peft_row(config, **settings)


@pytest.mark.parametrize(
    ("config", "phrase"),
    [
        ({"peft_type": "LORRA"}, "did you mean 'LORA'"),
        ({"peft_type": "LORA", "rank": 8}, "'rank' is no field of peft's LORA"),
        ({"peft_type": "LORA", "task_type": "CAUSAL_LM"}, "task_type = 'CAUSAL_LM'.*leave the field out"),
        ({"peft_type": "LORA", "inference_mode": True}, "inference_mode: the sweep decides it"),
        ({"peft_type": "LORA", "megatron_core": "os"}, "cannot load files or import modules"),
        ({"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}}, "cannot load files"),
        ({"peft_type": "LORA", "init_lora_weights": "eva"}, "from data before training"),
        ({"peft_type": "XLORA"}, "cannot be a row"),
        ({"peft_type": "LORA", "target_modules": ["nowhere"]}, "nowhere"),
        ({"peft_type": "LORA", "r": 0}, "r"),
        ({"peft_type": "TRAINABLE_TOKENS"}, "leaves the new head"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, "cannot be trained on this model"),
    ],
)
def test_what_peft_or_a_row_cannot_do_is_refused_with_the_plan(bert, in_process, config, phrase):
    with pytest.raises(ValueError, match=rf"method 'peft_{config['peft_type'].lower()}' on .*{phrase}"):
        make_plan(space_of(bert, peft_row(config)), RunOptions())


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "LOHA", "r": 4},
        {"peft_type": "BOFT", "boft_block_size": 4, "target_modules": ["query"]},  # needs values, not only shapes
        {"peft_type": "VERA", "r": 8},
        {"peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_hidden_size": 16},
    ],
)
def test_a_plan_counts_what_a_trial_trains(bert, config):
    engine, trial = PeftEngine(resolve(str(bert)), torch.device("cpu")), peft_trial(config)
    engine.add_trial(trial, make_data())
    assert measure.check(dict(trial.settings), bert, HEADS) == [engine.counts(trial.id).trained]


def test_a_plan_says_who_trains_and_what(bert, in_process, tmp_path):
    rows = (
        method("lora"),
        peft_row({"peft_type": "LORA", "r": choice(2, 4)}),
        peft_row({"peft_type": "LORA", "r": 8, "target_modules": ["key"]}, label="keys"),
    )
    plan = make_plan(space_of(bert, *rows), RunOptions())
    # 2 layers, query and value: r (32 + 32) each; the head has 66.
    trained = plan.peft[str(bert), "peft_lora"]
    assert (trained.least, trained.most) == (2 * 2 * 2 * 64 + 66, 2 * 2 * 4 * 64 + 66)
    assert {each["settings"]["r"] for each in in_process} == {2, 4, 8}
    text = plan_text(plan, RunOptions(out=tmp_path))
    assert f"trained alone by peft {peft.__version__}, each trial on a copy of the model: peft_lora, keys" in text
    assert "578 to 1,090" in text
    title = f"LORA, trained alone by peft {peft.__version__}"
    assert titles(plan.space) == ["LoRA", title, f"{title} (keys)"]


def test_on_a_model_without_a_family_only_rows_of_peft_are_planned(in_process, tmp_path):
    model = write_other(tmp_path / "opt", "opt")
    row = peft_row({"peft_type": "LORA", "r": 2})
    with pytest.raises(
        ValueError, match=r"'opt' is not supported.*peft_row\(.*methods lora, full on .*opt cannot.*rows of peft alone"
    ):
        make_plan(space_of(model, method("lora"), row, method("full")), RunOptions())
    assert make_plan(space_of(model, row), RunOptions()).peft[str(model), "peft_lora"].least > 0


def test_without_peft_the_plan_says_how_to_install_it(bert, monkeypatch):
    monkeypatch.setattr(peft_check, "installed_peft", lambda: None)
    with pytest.raises(EnvironmentUnfit, match=r"pip install 'peft-sweep\[peft\]'"):
        make_plan(space_of(bert, peft_row({"peft_type": "LORA"})), RunOptions())


def test_a_row_in_yaml_is_that_in_python(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
models: [minilm]
tasks: [agreement]
methods:
  - peft_row: {peft_type: LOHA, r: {choice: [4, 8]}, target_modules: [query, value], rank_pattern: {query: 2}}
    lr: choice(1e-3, 3e-3)
    label: loha
search: {lr: 1e-3, batch_size: 8}
"""
    )
    config = {
        "peft_type": "LOHA",
        "r": choice(4, 8),
        "target_modules": ["query", "value"],
        "rank_pattern": {"query": 2},
    }
    assert load_space(str(path)).methods == (peft_row(config, lr=choice(1e-3, 3e-3), label="loha"),)
    path.write_text(path.read_text().replace("peft_type: LOHA, ", ""))
    with pytest.raises(ValueError, match=r"mine\.yaml:5: peft_row: peft_type = None"):
        load_space(str(path))


@pytest.mark.slow
def test_the_check_runs_in_a_process_of_its_own(bert):
    rows = (peft_row({"peft_type": "LOHA", "r": 4}),)
    assert make_plan(space_of(bert, *rows), RunOptions()).peft[str(bert), "peft_loha"].least > 66
    with pytest.raises(ValueError, match="no field of peft's LOHA"):
        make_plan(space_of(bert, peft_row({"peft_type": "LOHA", "rank": 4})), RunOptions())


def test_a_row_of_peft_is_not_trained_in_4_bits(bert):
    space = replace(space_of(bert, peft_row({"peft_type": "LORA"})), recipe=Recipe(precision="nf4", max_length=64))
    with pytest.raises(ValueError, match="rows of peft are trained in 'fp32' or 'bf16'"):
        make_plan(space, RunOptions())
