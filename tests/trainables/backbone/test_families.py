"""Each model family declares the tensors of its model, and is the only place that names its modules."""

import re
from pathlib import Path

import pytest
import torch
import transformers

from tests.fixtures.encoders import write_tiny
from trainables.backbone.families import FAMILIES
from trainables.backbone.models import peek, shape_of

PACKAGES = ("search_spaces", "trainables", "orchestrator", "reports", "benchmarks")
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_declared_tensors_are_the_models_in_its_order(name, tiny_model):
    family, path = FAMILIES[name], tiny_model(name).path
    config = transformers.AutoConfig.from_pretrained(path)
    shape = shape_of(config.to_dict())
    options = {"add_pooling_layer": shape.pooler} if family.pretrained_pooler else {}
    with torch.device("meta"):
        module = getattr(transformers, family.model)(config, **options)
        whole = getattr(transformers, family.model)(config)
    assert [(t.name, t.shape) for t in shape.tensors] == [(n, tuple(p.shape)) for n, p in module.named_parameters()]
    assert shape.total == sum(p.numel() for p in whole.parameters())


def test_a_model_type_without_a_family_is_refused_with_those_that_have_one_and_the_row_that_takes_it():
    with pytest.raises(
        ValueError, match=rf"'t5' is not supported; supported: {', '.join(FAMILIES)}\. A row peft_row\(\{{.*alone$"
    ):
        shape_of({"model_type": "t5"})


def test_an_electra_that_projects_its_embeddings_is_refused_before_anything_is_loaded(tmp_path):
    write_tiny(tmp_path, "electra")
    path = tmp_path / "config.json"
    path.write_text(re.sub(r'"embedding_size": \d+', '"embedding_size": 16', path.read_text()))
    with pytest.raises(ValueError, match=r"embedding_size = 16 and hidden_size = 32: a projection"):
        peek(str(tmp_path))


@pytest.mark.parametrize("key", ["dim", "n_layers", "n_heads", "hidden_dim"])
def test_a_missing_size_is_named_as_the_family_calls_it(key, tiny_model):
    config = transformers.AutoConfig.from_pretrained(tiny_model("distilbert").path).to_dict()
    with pytest.raises(ValueError, match=rf"^{key} = None: must be a whole number"):
        shape_of({**config, key: None})


def test_nothing_but_the_families_names_modules_of_a_model():
    names = re.compile(
        r"encoder\.layer|transformer\.layer|\battention\.self\b|q_lin\b|LayerNorm\.(weight|bias)|4 \* \(?d \* d"
    )
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.parent.name != "families"]
    assert len(files) > 100
    assert [str(path) for path in files if names.search(path.read_text())] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads = 4 is no multiple of num_key_value_heads = 3"),
        ({"num_key_value_heads": 0}, "num_key_value_heads = 0: must be"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_scaling": {"type": "longrope"}, "rope_parameters": None}, "'longrope'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "a part of each head"),
        ({"use_bidirectional_attention": True}, "attention to later tokens"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layers of type chunked_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types lists 1 layers, and num_hidden_layers = 2"),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}, "sliding_attention": None}}, "'dynamic'"),
    ],
)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_decoder_with_what_the_forward_pass_lacks_is_refused(change, message, family, tiny_model):
    config = transformers.AutoConfig.from_pretrained(tiny_model(family).path).to_dict()
    shape_of(config)
    with pytest.raises(ValueError, match=message):
        shape_of({**config, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": {"rope_type": "longrope"}}, "'longrope'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "su"}}, "'su'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "yarn"}}, "'yarn'"),
        ({"partial_rotary_factor": 0.75, "rope_parameters": None}, "a part of each head"),
        ({"resid_pdrop": 0.1}, r"resid_pdrop = 0.1: only 0 is supported.*Recipe\(dropout"),
    ],
)
def test_a_phi_3_with_what_the_forward_pass_lacks_is_refused(change, message, tiny_model):
    config = transformers.AutoConfig.from_pretrained(tiny_model("phi3").path).to_dict()
    with pytest.raises(ValueError, match=message):
        shape_of({**config, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True: only False is supported"),
        ({"scale_attn_weights": False}, "scale_attn_weights = False: only True"),
        ({"add_cross_attention": True}, "add_cross_attention = True: only False"),
        ({"embd_pdrop": 0.2}, r"embd_pdrop = 0\.2 and resid_pdrop = 0\.1: both"),
    ],
)
def test_a_gpt_2_with_what_the_forward_pass_lacks_is_refused(change, message, tiny_model):
    config = transformers.AutoConfig.from_pretrained(tiny_model("gpt2").path).to_dict()
    with pytest.raises(ValueError, match=message):
        shape_of({**config, **change})
