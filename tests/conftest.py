"""Fixtures that several test files share: tiny random encoders on disk, and made-up task data for them."""

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

VOCABULARY = 200


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


def write_tiny(folder: Path, family: str, seed: int = 0) -> Path:
    """A random encoder of 2 layers, 32 wide, with a word-level tokenizer, in the layout that users' own models have."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        # transformers starts at 0.02, which leaves so small an encoder nearly constant.
        "initializer_range": 0.2,
    }
    if family == "bert":
        config = transformers.BertConfig(**sizes, max_position_embeddings=140)
        model = transformers.BertModel(config)
    else:
        config = transformers.RobertaConfig(**sizes, max_position_embeddings=140, type_vocab_size=1)
        model = transformers.RobertaModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    from trainables.models import resolve

    return resolve(str(write_tiny(tmp_path_factory.mktemp("bert"), "bert")))


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory):
    from trainables.models import resolve

    return resolve(str(write_tiny(tmp_path_factory.mktemp("roberta"), "roberta")))


def make_split(number: int, seed: int, outputs: int = 2, low: int = 4, high: int = 12):
    """Random token sequences whose label tells which of two marker words comes first: learnable, not trivial."""
    from trainables.tasks.contract import Split

    draw = np.random.default_rng(seed)
    lengths = draw.integers(low, high, number)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = draw.integers(20, VOCABULARY, offsets[-1]).astype(np.int32)
    labels = draw.integers(0, max(2, outputs), number).astype(np.float32)
    for start, label in zip(offsets[:-1], labels, strict=True):
        ids[start] = 1
        ids[start + 1] = 10 + int(label)
    return Split(ids=ids, token_types=np.zeros(len(ids), np.int8), offsets=offsets, labels=labels)


def make_data(outputs: int = 2, seed: int = 0, train: int = 40, test: int = 30, low: int = 4, high: int = 12):
    from trainables.tasks.contract import Task, TaskData

    task = Task(
        name="made-up",
        title="Made up",
        metrics=("pearson",) if outputs == 1 else ("accuracy",),
        regression=outputs == 1,
        outputs=outputs,
        source="generated",
        test_source="generated",
    )
    splits = [make_split(n, seed * 10 + i, outputs, low, high) for i, n in enumerate((train, test, test))]
    return TaskData(task=task, train=splits[0], validation=splits[1], test=splits[2], fingerprint=f"{seed:016x}")


def make_trial(
    method: str = "adapter", *, lr: float = 1e-3, batch_size: int = 8, seed: int = 1, recipe=None, **settings
):
    from search_spaces.language import Cell, Recipe
    from search_spaces.records import Trial

    return Trial(
        cell=Cell(model="tiny", task="made-up", method=method),
        method=method,
        settings=settings,
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        phase="search",
        recipe=recipe or Recipe(epochs=3),
        weights="w",
        split="s",
    )


@pytest.fixture
def driver(monkeypatch):
    """Stands for the driver: takes a checked plan, and fails the test unless told what to do with it."""
    module = ModuleType("orchestrator.driver")
    module.Settings = dict
    module.drive = lambda plan, settings: pytest.fail("a sweep was started")
    monkeypatch.setitem(sys.modules, "orchestrator.driver", module)
    return module


@pytest.fixture
def run(driver, monkeypatch, capsys, tmp_path):
    """Calls the command line in an empty folder; returns (exit code, what it wrote to stderr)."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    from orchestrator.run import main

    def call(*words) -> tuple[int, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        assert list(place.iterdir()) == []
        return code, errors

    return call
