"""Writes and reads the parameters of methods that the library peft has as well, in its layout: adapter_config.json and tensors.

peft itself is not needed for this; the tests load what is written here with it. Methods that are missing in `PEFT_METHODS` have
no counterpart there that gives the same numbers for encoders with a classification head:

prefix, prefix_mlp, p_tuning_v2   peft hands prefixes over as `past_key_values`, which transformers' BERT and RoBERTa do not take
prompt_tuning                     peft puts the prompt before the first token, whose hidden state the head reads; here after it
adaption_prompt                   peft has it for decoders only
bitfit                            peft has no such method; its result are other biases (`plain_weights.py`)

Legend: r rank, n width of a map's input or output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orchestrator.export.tensor_names import head_names
from trainables.backbone.backbone import Backbone
from trainables.backbone.families.family import ModelFamily
from trainables.methods.adalora import AdaLoRA
from trainables.methods.base import Method
from trainables.methods.lora import LoRA
from trainables.methods.pissa import PiSSA
from trainables.methods.rslora import RsLoRA
from trainables.methods.spec import Site
from trainables.training.parameter_layout import ParameterLayout, ParameterSlice, frozen_initial_values

PREFIX = "base_model.model"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# Where the module that peft replaces is another one than that at whose output our site is: (IA)^3 scales the input of a map.
MODULES: Mapping[Site, Site] = {"ffn.hidden": "ffn.dense"}


@dataclass(frozen=True, kw_only=True)
class PeftMethod:
    """One method of peft. `config(method)`: entries of adapter_config.json. `names`: peft's name of each parameter, by ours."""

    config: Callable[[Any], dict[str, Any]]
    names: Mapping[str, str]


def _lora(method: LoRA) -> dict[str, Any]:
    return {"peft_type": "LORA", "r": method.r, "lora_alpha": method.strength, "lora_dropout": 0.0, "bias": "none"}


def _rslora(method: RsLoRA) -> dict[str, Any]:
    return {**_lora(method), "use_rslora": True}


def _dora(method: LoRA) -> dict[str, Any]:
    return {**_lora(method), "use_dora": True}


def _pissa(method: PiSSA) -> dict[str, Any]:
    """As LoRA of twice the rank on the unchanged weights: s (A B - A0 B0) = s [A, A0] [B; -B0]."""
    return {**_lora(method), "r": 2 * method.r, "lora_alpha": 2 * method.strength}


def _vera(method: Any) -> dict[str, Any]:
    return {"peft_type": "VERA", "r": method.r, "vera_dropout": 0.0, "save_projection": True, "bias": "none"}


def _adalora(method: AdaLoRA) -> dict[str, Any]:
    own = {name: value for name, value in _lora(method).items() if name != "r"}
    # peft wants the number of training steps even where nothing is trained.
    return {**own, "peft_type": "ADALORA", "init_r": method.r, "target_r": method.target, "total_step": 1}


LORA_NAMES = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
PEFT_METHODS: dict[str, PeftMethod] = {
    "lora": PeftMethod(config=_lora, names=LORA_NAMES),
    "rslora": PeftMethod(config=_rslora, names=LORA_NAMES),
    "dora": PeftMethod(config=_dora, names=LORA_NAMES),
    "pissa": PeftMethod(config=_pissa, names=LORA_NAMES),
    "dylora": PeftMethod(config=_lora, names=LORA_NAMES),
    "vera": PeftMethod(config=_vera, names={"inner": "vera_lambda_d", "outer": "vera_lambda_b"}),
    "adalora": PeftMethod(config=_adalora, names={"down": "lora_A", "up": "lora_B", "singular": "lora_E"}),
    "ia3": PeftMethod(config=lambda method: {"peft_type": "IA3"}, names={"scale": "ia3_l"}),
    "layer_norm": PeftMethod(
        config=lambda method: {"peft_type": "LN_TUNING"},
        names={"weight": "ln_tuning_layers.weight", "bias": "ln_tuning_layers.bias"},
    ),
}


def config(
    name: str, layout: ParameterLayout, family: ModelFamily, base: str, saved: tuple[str, ...]
) -> dict[str, Any]:
    """Return the content of adapter_config.json. `base`: the pretrained model; `saved`: further modules that are replaced."""
    head = {path.partition(".")[0] for path in head_names(family).values()}
    written = {
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "target_modules": _pattern(layout, family),
        "modules_to_save": sorted({*head, *saved}),
        **PEFT_METHODS[name].config(layout.method),
    }
    if name == "ia3":
        written["feedforward_modules"] = _pattern(layout, family, only="ffn.hidden")
    return written


def to_peft(name: str, tensors: Mapping[str, Tensor], layout: ParameterLayout, backbone: Backbone) -> dict[str, Tensor]:
    """Return the tensors of the file adapter_model.safetensors for a trial's tensors by our names."""
    found = {}
    for e in layout.entries:
        value = tensors[e.name]
        if name == "pissa" and not e.name.startswith("head."):
            value = _with_initial(value, e, layout.method, backbone)
        found[_key(name, e, backbone.family, layout.shape.layers)] = _as_theirs(e.name, value).contiguous()
    if name == "vera":
        constants = layout.constants(backbone)
        found |= {
            f"base_model.vera_{x}": constants[ours].cpu().T.contiguous() for x, ours in (("A", "down"), ("B", "up"))
        }
    return found


def from_peft(
    name: str, theirs: Mapping[str, Tensor], layout: ParameterLayout, family: ModelFamily
) -> dict[str, Tensor]:
    """Return a trial's tensors by our names, without those that are missing."""
    found = {}
    for e in layout.entries:
        value = theirs.get(_key(name, e, family, layout.shape.layers))
        if value is not None and e.is_matrix:
            found[e.name] = value.T[tuple(slice(size) for size in e.shape)]  # PiSSA has its initial values behind
        elif value is not None:
            found[e.name] = value.reshape(-1)
    return found


def _key(name: str, e: ParameterSlice, family: ModelFamily, layers: int) -> str:
    prefix, _, last = e.name.rpartition(".")
    if prefix == "head":
        return f"{PREFIX}.{head_names(family)[e.name]}"
    return f"{PREFIX}.{family.prefix}.{_module(prefix, family, layers)}.{PEFT_METHODS[name].names[last]}"


def _module(prefix: str, family: ModelFamily, layers: int) -> str:
    """Return the path of the module that peft replaces for our parameters "<layer>.<site>" or "norm.<number>"."""
    first, _, rest = prefix.partition(".")
    if first == "norm":
        return family.norm_paths(layers)[int(rest)]
    site: Any = rest
    return family.map_path(int(first), MODULES.get(site, site))


def _pattern(layout: ParameterLayout, family: ModelFamily, only: str = "") -> str:
    """Return a regular expression that matches the full paths of the modules that peft replaces, and no other ones."""
    prefixes = dict.fromkeys(p for p in layout.names if p != "head" and p.endswith(only))
    paths = dict.fromkeys(
        re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(_module(p, family, layout.shape.layers))) for p in prefixes
    )
    return rf"{re.escape(family.prefix)}\.({'|'.join(paths)})"


def _as_theirs(name: str, value: Tensor) -> Tensor:
    if value.dim() > 1:
        return value.T
    prefix, _, last = name.rpartition(".")
    if last == "scale":
        return value[None] if prefix.endswith("ffn.hidden") else value[:, None]
    return value[:, None] if last == "singular" else value


def _with_initial(value: Tensor, e: ParameterSlice, method: Method, backbone: Backbone) -> Tensor:
    """Return PiSSA's factor with its initial one behind it: [n, 2 r] for A, and [2 r, n] for B, whose initial one is negated."""
    prefix, _, last = e.name.rpartition(".")
    layer, _, site = prefix.partition(".")
    initial = frozen_initial_values(method, backbone, int(layer), site)[last].cpu()  # type: ignore[arg-type]
    return torch.cat([value, initial], 1) if last == "down" else torch.cat([value, -initial])
