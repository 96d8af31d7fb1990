"""A model whose tables do not fit what is put into them, or whose weights are not whole, is refused by --plan."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from orchestrator import exit_codes
from tests.fixtures.encoders import VOCABULARY, shard
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import check, check_length, fingerprint, resolve
from trainables.backbone.token_ids import largest_id

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_bert, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bert.path, tmp_path / "encoder"))


@pytest.fixture(scope="module")
def sharded(tiny_bert, tmp_path_factory) -> Path:
    return shard(tiny_bert.path, tmp_path_factory.mktemp("sharded") / "encoder")


@pytest.fixture
def plan(run):
    """Runs --plan on a model with a generated task; returns (exit code, what it wrote to stderr)."""
    return lambda folder: run("--space", "quickstart", "--methods", "adapter", "--models", folder, "--plan")


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def add_tokens(folder: Path) -> None:
    """Two tokens more, without the call of `resize_token_embeddings` that has to follow."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<user>", "<url>"])
    tokenizer.save_pretrained(folder)


def few_positions(folder: Path) -> None:
    edit(folder / "config.json", max_position_embeddings=64)
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(folder, ignore_mismatched_sizes=True)
    whole.save_pretrained(folder)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def without_a_shard(folder: Path) -> None:
    next(folder.glob("model-00002-of-*.safetensors")).unlink()


def with_half_a_shard(folder: Path) -> None:
    path = next(folder.glob("model-00002-of-*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def index_that_leads_elsewhere(folder: Path) -> None:
    edit(folder / INDEX, weight_map={"pooler.dense.weight": "../model.safetensors"})


def index_without_a_tensor(folder: Path) -> None:
    known = json.loads((folder / INDEX).read_text())["weight_map"]
    edit(folder / INDEX, weight_map=known | {"more": next(iter(known.values()))})


@pytest.mark.parametrize(
    ("spoil", "in_shards", "words"),
    [
        (add_tokens, False, f"token ids up to {VOCABULARY + 1}, and the model has embeddings for {VOCABULARY} tokens"),
        (few_positions, False, "max_length = 128: model"),
        (pickled, False, "only pytorch_model.bin: a pickle"),
        (truncated, False, "is cut off or no safetensors file; copy or download it again"),
        (without_a_shard, True, "lacks 1 of the"),
        (with_half_a_shard, True, "is cut off or no safetensors file"),
        (index_that_leads_elsewhere, True, "names '../model.safetensors', which is no safetensors file in this folder"),
        (index_without_a_tensor, True, "has no tensor more, which"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_plan_refuses_a_model_that_would_fail_in_training(
    plan, tiny_bert, sharded, tmp_path, spoil, in_shards, words
):
    folder = Path(shutil.copytree(sharded if in_shards else tiny_bert.path, tmp_path / "encoder"))
    spoil(folder)
    code, errors = plan(folder)
    assert code == exit_codes.BAD_INPUT
    assert words in errors
    assert str(folder) in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("in_shards", [False, True])
def test_a_plan_takes_a_whole_model(plan, tiny_bert, sharded, in_shards):
    assert plan(sharded if in_shards else tiny_bert.path) == (exit_codes.COMPLETE, "")


def test_weights_from_shards_are_those_from_one_file_bit_for_bit(tiny_bert, sharded):
    from_shards, from_one = (
        Backbone.load(model, torch.device("cpu")).module.state_dict() for model in (resolve(str(sharded)), tiny_bert)
    )
    assert from_shards.keys() == from_one.keys()
    assert all(torch.equal(from_shards[name], from_one[name]) for name in from_one)


def test_a_file_of_all_weights_counts_before_shards(sharded, tiny_bert, tmp_path):
    folder = Path(shutil.copytree(sharded, tmp_path / "both"))
    shutil.copy(tiny_bert.path / "model.safetensors", folder)
    without_a_shard(folder)
    assert resolve(str(folder)).fingerprint == tiny_bert.fingerprint


@pytest.mark.parametrize("name", [INDEX, "model-00002-of-*.safetensors"])
def test_the_fingerprint_changes_with_the_index_and_with_every_shard(sharded, tmp_path, name):
    folder = Path(shutil.copytree(sharded, tmp_path / "encoder"))
    before = fingerprint(folder)
    path = next(folder.glob(name))
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(folder) != before == fingerprint(sharded)


@pytest.mark.parametrize(("family", "positions"), [("bert", 140), ("roberta", 138)])
def test_positions_are_counted_as_the_family_counts_them(tiny_model, family, positions):
    """RoBERTa's position embeddings begin at index 2, so that its table of 140 is for 138 tokens."""
    model = tiny_model(family)
    assert model.shape.positions == positions
    assert check(str(model.path), positions) == model.shape
    with pytest.raises(
        ValueError, match=f"max_length = {positions + 1}: model .* has positions for {positions} tokens"
    ):
        check(str(model.path), positions + 1)


def test_positions_are_checked_again_when_a_model_was_downloaded_after_the_plan():
    check_length("owner/name", 140, 140)
    check_length("owner/name", None, 140)
    with pytest.raises(ValueError, match=r"set Recipe\(max_length=64\) or less"):
        check_length("owner/name", 64, 128)


@pytest.mark.parametrize(
    ("files", "largest"),
    [
        ({"vocab.txt": "[PAD]\n[UNK]\na\n"}, 2),
        ({"vocab.txt": "[PAD]\n[UNK]\na\n", "added_tokens.json": {"<x>": 3}}, 3),
        ({"vocab.json": {"a": 0, "b": 7}, "merges.txt": ""}, 7),
        ({"vocab.txt": "a\nb\n", "tokenizer_config.json": {"added_tokens_decoder": {"9": {"content": "<x>"}}}}, 9),
    ],
)
def test_the_largest_id_is_found_in_every_kind_of_tokenizer(tmp_path, files, largest):
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert largest_id(tmp_path) == largest


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_a_damaged_tokenizer_is_refused_with_its_file(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"model .*tokenizer\.json: no tokenizer can be read from it"):
        resolve(str(folder))
