"""Tokenised data: equal to the tokenizer's own output, made once, whole or not at all, and checked when read."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainables.tasks import tokens
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.task_data import Texts
from trainables.tasks.task_loading import load

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz.,'",
    "the",
    "##s",
    "##e",
    "##a",
    "##r",
]
LETTERS = [f"##{letter}" for letter in "bcdfghijklmnopqtuvwxyz"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """A word-piece tokenizer of single letters, saved as BERT's are."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS + LETTERS)}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory) -> str:
    """A byte-level tokenizer without merges, saved as RoBERTa's are."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    folder = tmp_path_factory.mktemp("roberta")
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    RobertaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    return str(folder)


def copy(folder: str, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


@pytest.fixture(scope="module")
def pairs():
    return load("entailment", data_dir=None, folder=Path("."), train_examples=40, test_examples=20)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize(("max_length", "at_once"), [(12, 20_000), (128, 7)])
def test_every_example_is_what_the_tokenizer_says_of_it(
    family, max_length, at_once, pairs, request, tmp_path, monkeypatch
):
    from transformers import AutoTokenizer

    monkeypatch.setattr(tokens, "AT_ONCE", at_once)
    folder = request.getfixturevalue(family)
    data = tokens.read(tokens.prepare(pairs, folder, max_length, tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for texts, split in ((pairs.train, data.train), (pairs.validation, data.validation), (pairs.test, data.test)):
        assert len(split) == len(texts)
        assert split.labels.tolist() == texts.labels
        for i, (first, second) in enumerate(zip(texts.first, texts.second, strict=True)):
            expected = tokenizer(first, second, truncation=True, max_length=max_length)
            place = slice(split.offsets[i], split.offsets[i + 1])
            assert split.ids[place].tolist() == expected["input_ids"]
            types = expected.get("token_type_ids", [0] * len(expected["input_ids"]))
            assert split.token_types[place].tolist() == types
            assert len(expected["input_ids"]) <= max_length
    assert set(data.train.token_types.tolist()) == ({0, 1} if family == "bert" else {0})
    assert (data.train.ids.dtype, data.train.token_types.dtype) == (np.int32, np.int8)
    assert (data.train.offsets.dtype, data.train.labels.dtype) == (np.int64, np.float32)


def test_a_model_with_one_token_type_is_never_asked_for_a_second(pairs, bert, tmp_path):
    folder = copy(bert, tmp_path / "one-type")
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta", "type_vocab_size": 1}))
    data = tokens.read(tokens.prepare(pairs, str(folder), 64, tmp_path))
    assert not data.train.token_types.any()


def test_the_task_and_the_fingerprint_come_back(pairs, bert, tmp_path):
    data = tokens.read(tokens.prepare(pairs, bert, 64, tmp_path))
    assert data.task == pairs.task
    assert data.fingerprint == pairs.fingerprint


def test_a_second_call_neither_loads_the_tokenizer_nor_writes_the_file(pairs, bert, tmp_path, monkeypatch):
    path = tokens.prepare(pairs, bert, 64, tmp_path)
    before = path.stat()
    monkeypatch.setattr(tokens, "_tokenizer", lambda *_: pytest.fail("the tokenizer was loaded again"))
    assert tokens.prepare(pairs, bert, 64, tmp_path) == path
    # Not the whole record: reading changes the time of the last access.
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_size) == (before.st_mtime_ns, before.st_ino, before.st_size)


def test_another_length_text_or_tokenizer_is_another_file(pairs, bert, roberta, tmp_path):
    other = replace(pairs, fingerprint="0" * 16)
    paths = {
        tokens.prepare(pairs, bert, 64, tmp_path),
        tokens.prepare(pairs, bert, 65, tmp_path),
        tokens.prepare(other, bert, 64, tmp_path),
        tokens.prepare(pairs, roberta, 64, tmp_path),
    }
    assert len(paths) == 4


def test_several_at_once_make_the_file_once(pairs, bert, tmp_path, monkeypatch):
    made = []
    write = tokens._write
    monkeypatch.setattr(tokens, "_write", lambda *arguments: (made.append(1), write(*arguments)))
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: tokens.prepare(pairs, bert, 64, tmp_path), range(4)))
    assert len(paths) == len(made) == 1


def test_a_failed_write_leaves_nothing_that_looks_finished(pairs, bert, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        tokens.prepare(pairs, bert, 64, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.99])
def test_a_flipped_byte_is_noticed(pairs, bert, tmp_path, place):
    path = tokens.prepare(pairs, bert, 64, tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x11
    path.write_bytes(content)
    with pytest.raises(tokens.DamagedTokens, match="cannot be read"):
        tokens.read(path)


@pytest.mark.parametrize("damage", [lambda good: good[:-40] + bytes(40), lambda good: good[:500], lambda good: b""])
def test_a_damaged_file_is_made_again_with_the_same_content(pairs, bert, tmp_path, damage, caplog):
    path = tokens.prepare(pairs, bert, 64, tmp_path)
    good = path.read_bytes()
    whole = tokens.read(path)
    path.write_bytes(damage(good))
    assert tokens.prepare(pairs, bert, 64, tmp_path) == path
    again = tokens.read(path)
    for part in tokens.PARTS:
        for name in tokens.ARRAYS:
            assert getattr(getattr(again, part), name).tolist() == getattr(getattr(whole, part), name).tolist()
    assert "it is made again" in caplog.text


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_noticed(pairs, bert, tmp_path, keep):
    path = tokens.prepare(pairs, bert, 64, tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(tokens.DamagedTokens, match="cannot be read"):
        tokens.read(path)


def test_a_length_beyond_the_tokenizer_s_own_limit_is_refused(pairs, bert, tmp_path):
    folder = copy(bert, tmp_path / "short")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 50}))
    with pytest.raises(ValueError, match=r"max_length = 64: the tokenizer in .* allows 50"):
        tokens.prepare(pairs, str(folder), 64, tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(pairs, tmp_path):
    with pytest.raises(ValueError, match="no tokenizer can be loaded"):
        tokens.prepare(pairs, str(tmp_path), 64, tmp_path / "cache")


def test_a_token_id_beyond_the_model_s_embeddings_is_refused_before_training(pairs, bert, tmp_path):
    folder = copy(bert, tmp_path / "small")
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**config, "vocab_size": 20}))
    with pytest.raises(
        ValueError, match=r"makes token id \d+ of these texts, and the model has embeddings for 20 tokens"
    ):
        tokens.prepare(pairs, str(folder), 64, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.safetensors"))


@pytest.fixture(scope="module")
def plain_words(tmp_path_factory) -> str:
    """A tokenizer that adds no tokens of its own, as those of many decoders; it has no padding token either."""
    import transformers
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("plain")
    words = ["<end>", "<unk>", "\n", "good", "bad", "day"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    parts = [pre_tokenizers.Split(Regex(" +"), "removed"), pre_tokenizers.Split("\n", "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    kind = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    kind.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(words)}))
    return str(folder)


def test_texts_that_a_tokenizer_does_not_separate_are_joined_by_a_line_break(plain_words, tiny_bert):
    texts = Texts(first=["good day", "bad"], second=["day", ""], labels=[0.0, 1.0])
    split = tokens.tokenise(texts, Path(plain_words), 16, CLASSIFICATION)
    assert split.ids.tolist() == [3, 5, 2, 5, 4, 2]
    assert split.offsets.tolist() == [0, 4, 6]
    use = tokens.tokenizer_use(Path(plain_words), 16)
    assert (use.separator, use.pads, use.token_types) == ("\n", False, 0)
    assert tokens.tokenizer_use(tiny_bert.path, 16).separator == ""


def test_an_empty_text_is_one_token(plain_words):
    texts = Texts(first=["", "good"], second=None, labels=[0.0, 1.0])
    split = tokens.tokenise(texts, Path(plain_words), 16, CLASSIFICATION)
    assert (split.ids.tolist(), split.offsets.tolist()) == ([0, 3], [0, 1, 2])
