"""The name of a sweep, and what its manifest says: they change with what a space says, and with nothing else."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from orchestrator.planning import sweep_manifest
from orchestrator.planning.sweep_manifest import folder_name, new_sweep_id
from search_spaces import quantization, records
from search_spaces.events import LedgerRecord, SweepOpened
from search_spaces.history import SweepHistory
from search_spaces.language import Budget, FileTask, Recipe, ablated, choice, log_uniform, method
from search_spaces.loading import load
from search_spaces.records import Trial
from tests.fixtures.spaces import make_space
from tests.fixtures.trials import make_trial
from trainables.methods import METHODS

ROOT = Path(__file__).parents[3]


def test_a_sweep_keeps_its_name_when_only_titles_or_places_change():
    space = make_space()
    same = replace(space, title="Another", paper="madapter", folder=Path("/elsewhere"))
    assert folder_name(same) == folder_name(space)
    assert folder_name(make_space(models=list(space.models), methods=list(space.methods))) == folder_name(space)


OTHER = {"int": 30, "int | Mapping[str, int]": 30, "float": 0.25, "Precision": "bf16"}
# Ids of the same trial in the versions before there was NF4.
IDS = {"fp32": "b3a12435b2f08ad9", "bf16": "328749b1ecef7b8b"}
NF4 = {"precision": "nf4", "nf4_block_size": 128, "nf4_double_quant": False, "nf4_compute": "fp32"}

CHANGES = {
    "name": {"name": "other"},
    "models": {"models": ("bert-base-uncased",)},
    "order of models": {"models": ("roberta-base", "bert-base-uncased")},
    "tasks": {"tasks": ("agreement",)},
    "file task": {"tasks": ("agreement", FileTask(name="entailment", train="a.csv", text="t", label="l"))},
    "label": {"methods": (method("full", label="all"), method("adapter", r=choice(32, 64)))},
    "fixed setting": {"methods": (method("full"), method("adapter", r=32))},
    "searched setting": {"methods": (method("full"), method("adapter", r=choice(32, 65)))},
    "order of a choice": {"methods": (method("full"), method("adapter", r=choice(64, 32)))},
    "ablated row": {"methods": (method("full"), ablated(method("adapter", r=choice(32, 64))))},
    "lr": {"search": {"lr": choice(1e-4, 2e-3), "batch_size": choice(8, 16)}},
    "range": {"search": {"lr": log_uniform(1e-4, 1e-3), "batch_size": choice(8, 16)}},
    "order of dimensions": {"search": {"batch_size": choice(8, 16), "lr": choice(1e-4, 1e-3)}},
    "seed": {"seed": 1},
    **{
        f"recipe.{field.name}": {"recipe": replace(Recipe(epochs=8), **{field.name: OTHER[str(field.type)]})}
        for field in fields(Recipe)
        if field.name not in quantization.FIELDS
    },
    **{
        f"nf4, {name}": {"recipe": Recipe(epochs=8, **{"precision": "nf4", name: value})} for name, value in NF4.items()
    },
    **{
        f"budget.{field.name}": {
            "budget": replace(
                Budget(trials=6, final_seeds=2), **{field.name: "random" if field.name == "search" else 5}
            )
        }
        for field in fields(Budget)
    },
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_sweep_gets_another_name_with_anything_else_that_the_space_says(what):
    assert folder_name(make_space(**CHANGES[what])) != folder_name(make_space())


def test_rows_of_one_method_are_called_by_the_settings_in_which_they_differ():
    def told(*methods):
        return sweep_manifest.titles(make_space(methods=methods))

    widths = (method("adapter", label=f"a{r}", r=r) for r in (32, 64))
    assert told(method("full"), *widths) == ["Fine-tuning", "Adapter, r = 32", "Adapter, r = 64"]
    assert told(method("lora", r=8), method("lora", label="fast", r=8, lr=1e-3)) == ["LoRA", "LoRA, lr = 0.001"]
    assert told(method("adapter", label="ours", r=8)) == ["Adapter (ours)"]
    alike = (method("adapter", label="a", r=choice(8, 16)), method("adapter", label="b", r=choice(32, 64)))
    assert told(*alike) == ["Adapter (a)", "Adapter (b)"]


def test_a_row_that_is_not_ablated_is_named_as_before_there_were_ablations():
    assert "ablated" not in json.dumps(sweep_manifest.space_json(make_space()))


def test_settings_of_nf4_belong_to_sweeps_and_trials_that_use_it_alone():
    assert set(NF4) == {"precision", *quantization.FIELDS}
    for precision in ("fp32", "bf16"):
        recipe = Recipe(precision=precision)
        trial = make_trial(recipe=recipe)
        assert "nf4" not in json.dumps([sweep_manifest.space_json(make_space(recipe=recipe)), trial.to_json()])
        other = replace(recipe, nf4_block_size=128, nf4_compute="fp32")
        assert folder_name(make_space(recipe=other)) == folder_name(make_space(recipe=recipe))
        assert replace(trial, recipe=other).id == trial.id
    trials = [make_trial(recipe=replace(Recipe(precision="nf4"), **{name: value})) for name, value in NF4.items()]
    assert len({trial.id for trial in trials}) == len(NF4)
    assert [Trial.from_json(trial.to_json()) for trial in trials] == trials
    assert trials[0].to_json()["recipe"]["nf4_block_size"] == 64


def test_a_trial_has_the_id_that_it_had_before_there_was_nf4():
    ids = {precision: make_trial(recipe=Recipe(precision=precision)).id for precision in ("fp32", "bf16")}
    assert ids == IDS


def test_no_two_changes_share_a_name():
    assert len({folder_name(make_space(**change)) for change in CHANGES.values()}) == len(CHANGES)


def test_a_sweep_gets_another_name_with_the_meaning_of_training(monkeypatch):
    before, narrow = folder_name(make_space()), folder_name(make_space(recipe=Recipe(precision="bf16")))
    monkeypatch.setattr(sweep_manifest, "TRAINING_SEMANTICS", {**sweep_manifest.TRAINING_SEMANTICS, "fp32": 99})
    assert folder_name(make_space()) != before
    assert folder_name(make_space(recipe=Recipe(precision="bf16"))) == narrow, "the other precision trains as before"


def test_sweeps_with_a_regression_have_another_name_than_when_targets_were_not_standardised():
    """So that they begin anew, in a folder of their own; sweeps with classification alone keep their names."""
    mine = FileTask(name="mine", train="a.csv", text="t", label="l", regression=True)
    regressions = [make_space(tasks=tasks) for tasks in (("stsb",), (mine,), ("mrpc", "stsb"))]
    classification = make_space(tasks=("mrpc", replace(mine, regression=False)))
    now = [folder_name(space) for space in regressions]
    kept = folder_name(classification)
    text = json.dumps({**sweep_manifest.space_json(classification), "semantics": 3})
    assert kept.endswith(hashlib.sha256(text.encode()).hexdigest()[:8])
    for space, name in zip(regressions, now, strict=True):
        first_release = json.dumps({**sweep_manifest.space_json(space), "semantics": 3})
        assert not name.endswith(hashlib.sha256(first_release.encode()).hexdigest()[:8])


def test_a_sweep_has_the_same_name_in_every_process():
    script = (
        "from orchestrator.planning.sweep_manifest import folder_name, new_sweep_id; from search_spaces.loading import load; "
        "print(folder_name(load('quickstart')))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == folder_name(load("quickstart"))


def test_the_resolved_space_survives_json():
    resolved = sweep_manifest.space_json(make_space(tasks=(FileTask(name="mine", train="a.csv", text="t", label="l"),)))
    assert json.loads(json.dumps(resolved)) == resolved


def test_a_sweep_of_another_version_or_with_other_files_is_not_continued(tmp_path):
    from orchestrator.driver import FORMAT, check_unchanged
    from orchestrator.ledger import Damaged

    def begun(weights="w", version=FORMAT):
        opened = SweepOpened(format=version, manifest=sweep_manifest(weights))
        return SweepHistory([LedgerRecord(seq=1, time=0.0, event=opened)])

    def sweep_manifest(weights):
        return {"models": {"m": {"weights": weights}}, "tasks": {"t": {"split": "s"}}}

    check_unchanged(SweepHistory(), sweep_manifest("w"), tmp_path)
    check_unchanged(begun(), sweep_manifest("w"), tmp_path)
    with pytest.raises(Damaged, match="another version"):
        check_unchanged(begun(version=FORMAT + 1), sweep_manifest("w"), tmp_path)
    with pytest.raises(ValueError, match="changed since"):
        check_unchanged(begun("other"), sweep_manifest("w"), tmp_path)


def test_the_trials_of_the_methods_that_changed_and_of_no_other_have_new_ids(monkeypatch):
    names = [*METHODS]
    now = {name: make_trial(name) for name in names}
    monkeypatch.setattr(records, "METHOD_SEMANTICS", {})
    moved = {name for name in names if make_trial(name).id != now[name].id}
    assert moved == {"adalora", "child_tuning_d", "diff_pruning", "lt_sft", "rslora"}
    assert {now[name].semantics for name in names if name not in moved} == {3}
    assert now["adapter"].id == "6967cb79a29dbbc1", "as before there were versions of single methods"


def test_a_sweep_gets_another_name_only_if_it_has_a_method_that_changed(monkeypatch):
    spaces = {name: make_space(methods=(method(name),)) for name in ("adapter", "adalora")}
    before = {name: folder_name(space) for name, space in spaces.items()}
    monkeypatch.setattr(sweep_manifest, "METHOD_SEMANTICS", {})
    assert folder_name(spaces["adapter"]) == before["adapter"]
    assert folder_name(spaces["adalora"]) != before["adalora"]


def test_two_sweeps_of_one_space_have_the_same_folder_name_and_never_the_same_id():
    space = make_space()
    ids = {new_sweep_id(space) for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch(f"{folder_name(space)}-[0-9a-f]{{8}}", each) for each in ids)
