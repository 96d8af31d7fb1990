"""Trials of peft's rows on a device worker: beside fused ones, stopped and continued, on models without a family, counted."""

from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
import transformers

from search_spaces.language import Recipe
from search_spaces.peft_rows import peft_row
from tests.fixtures.encoders import SIZES, VOCABULARY, write_tiny
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.models import NoFamily, resolve
from trainables.peft_training.peft_engine import PeftEngine
from trainables.training.engine import Engine
from trainables.worker import device_worker
from trainables.worker.checkpoint import read
from trainables.worker.device_worker import DeviceWorker, Job
from trainables.worker.memory import MemoryEstimator

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, patience=4)
LORA = {"peft_type": "LORA", "r": 4, "lora_dropout": 0.1}
ADALORA = {"peft_type": "ADALORA", "tinit": 4, "tfinal": 6, "target_r": 2, "init_r": 4}


def peft_trial(config, **changes):
    trial = make_trial("peft", recipe=changes.pop("recipe", RECIPE), **peft_row(config).settings, **changes)
    return replace(trial, plugin=f"peft {peft.__version__}")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return resolve(str(write_tiny(tmp_path_factory.mktemp("bert") / "bert", "bert")))


@pytest.fixture
def job(bert, tmp_path, monkeypatch):
    """Makes the job of a trial on the tiny encoder."""
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data())

    def make(trial):
        trial = replace(trial, weights=bert.fingerprint)
        return Job(trial=trial, source=bert.name, data=tmp_path, folder=tmp_path / "checkpoints" / trial.id)

    return make


def train_on(worker, *jobs, epochs=4):
    """The reports of each job's epochs, trained together."""
    for each in jobs:
        worker.add_trial(each)
    reports = {each.trial.id: [] for each in jobs}
    for each in jobs:
        for _ in range(epochs):
            worker.request_epoch(each.trial.id)
    while worker.has_work:
        worker.step()
        assert not worker.failures, worker.failures
    for each in jobs:
        while worker.residents[each.trial.id].has_report:
            reports[each.trial.id].append(worker.residents[each.trial.id].next_report())
    return reports


def measured(reports):
    return [(r.progress.score, r.progress.loss, r.progress.best_epoch) for r in reports]


def test_a_worker_trains_fused_trials_and_rows_of_peft_and_neither_changes_the_other(job):
    recipe = Recipe(epochs=2)
    ours = [job(make_trial("lora", recipe=recipe, seed=seed)) for seed in (1, 2)]
    theirs = [job(peft_trial(LORA, recipe=recipe, seed=seed)) for seed in (1, 2)]
    together = train_on(DeviceWorker(CPU), *ours, *theirs, epochs=2)
    for each in (ours[0], theirs[0]):
        folder = each.folder.with_name(f"alone-{each.trial.id}")
        alone = train_on(DeviceWorker(CPU), replace(each, folder=folder), epochs=2)
        assert measured(alone[each.trial.id]) == measured(together[each.trial.id])
    losses = [[r.progress.loss for r in together[each.trial.id]] for each in theirs]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("config", [LORA, ADALORA, {"peft_type": "LOHA", "r": 2, "target_modules": "all-linear"}])
def test_a_trial_that_is_killed_continues_from_its_checkpoint_with_equal_results(job, config):
    final = job(replace(peft_trial(config), phase="final"))
    whole = train_on(DeviceWorker(CPU), final)[final.trial.id]
    again = replace(final, folder=final.folder.with_name("again"))
    train_on(DeviceWorker(CPU), again, epochs=2)
    assert read(again.folder, again.trial).epoch == 2
    rest = train_on(DeviceWorker(CPU), again)[final.trial.id]
    assert measured(rest) == measured(whole)
    assert rest[-1].test == whole[-1].test
    assert sorted(path.name for path in again.folder.iterdir()) == ["state.json", "state.safetensors"]


def test_a_finished_trial_is_reported_again_without_training(job):
    final = job(replace(peft_trial(LORA), phase="final"))
    first = train_on(DeviceWorker(CPU), final)[final.trial.id]
    worker = DeviceWorker(CPU)
    worker.add_trial(final)
    worker.request_epoch(final.trial.id)
    assert not worker.has_work
    assert worker.residents[final.trial.id].next_report().progress == first[0].progress


def test_order_schedule_and_early_stopping_are_those_of_other_trials(bert):
    recipe = Recipe(epochs=9, patience=2, warmup=0.3)
    engine, ours = PeftEngine(bert, CPU), make_trial("lora", recipe=recipe)
    state = engine.add_trial(peft_trial(LORA, recipe=recipe, lr=1e-9), make_data())
    from trainables.backbone.backbone import Backbone

    fused = Engine(Backbone.load(bert, CPU)).add_trial(ours, make_data())
    while not state.done:
        assert (state.batch()[1] == fused.batch()[1]).all()
        assert state.lr_scale() == fused.lr_scale()
        engine.step()
        fused.step, fused.epoch = state.step, state.epoch
    assert state.end_reason == "patience"
    assert state.epoch == state.progress[-1].best_epoch + 2


def test_the_copy_of_the_model_counts_before_a_trial_is_admitted(job, bert):
    class Memory:
        def used(self):
            return 0

        def total(self):
            return 4 * bert.total

        def reset_peak(self):
            pass

        def peak(self):
            return 0

    estimator = MemoryEstimator(Memory())
    worker = DeviceWorker(CPU, memory=estimator)
    worker.add_trial(job(make_trial("lora", recipe=RECIPE)))
    worker.add_trial(job(make_trial("lora", recipe=RECIPE, seed=2)))
    with pytest.raises(device_worker.OutOfDeviceMemory):
        worker.add_trial(job(peft_trial(LORA)))


def test_another_version_of_peft_is_refused_on_a_worker(job):
    other = job(replace(peft_trial(LORA), plugin="peft 0.1"))
    with pytest.raises(device_worker.WorkerEnvironmentError, match=r"the trial needs peft 0\.1"):
        DeviceWorker(CPU).add_trial(other)


# Models without a family here: alibi positions, positions with an offset, shared layers, fused projections.
OTHERS = {
    "gpt_neox": SIZES,
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    },
    "albert": {**SIZES, "embedding_size": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}


def write_other(folder, family):
    torch.manual_seed(0)
    options = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **OTHERS[family]}
    config = transformers.AutoConfig.for_model(family, **options)
    write_tiny(folder, "bert")  # its tokenizer
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", sorted(OTHERS))
def test_a_model_without_a_family_is_trained_by_peft(tmp_path, family):
    model = resolve(str(write_other(tmp_path / family, family)))
    with pytest.raises(NoFamily):
        _ = model.shape
    engine, trial = PeftEngine(model, CPU), peft_trial({**LORA, "target_modules": "all-linear"}, lr=1e-2)
    state = engine.add_trial(trial, make_data())
    while not state.done:
        engine.step()
    assert state.progress[-1].loss < state.progress[0].loss
    counts = engine.counts(trial.id)
    assert 0 < counts.module < counts.trained < counts.total == model.total


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "LORA"])
def test_outputs_do_not_depend_on_the_other_examples_of_a_batch(tmp_path, family, kind):
    model, data = resolve(str(write_tiny(tmp_path / "m", family))), make_data(low=3, high=15)
    data.test.ids[data.test.offsets[3] - 1] = 0  # an example that ends with the padding token
    config = {"peft_type": kind, **({"num_virtual_tokens": 3} if kind == "PROMPT_TUNING" else {"r": 2})}
    engine, trial = PeftEngine(model, CPU), peft_trial(config)
    engine.add_trial(trial, data)
    training = engine._trial
    together = training._outputs(data.test)
    alone = [
        training.network(**inputs).logits.detach().numpy()
        for example in range(len(data.test))
        for _, inputs in training.padding.batches(data.test, np.array([example]), CPU)
    ]
    assert together == pytest.approx(np.concatenate(alone), abs=1e-5)
