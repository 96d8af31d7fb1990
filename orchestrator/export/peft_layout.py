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

from orchestrator.export.joined_maps import joined, part_of, sites_of
from orchestrator.export.tensor_names import head_names
from trainables.backbone.backbone import Backbone
from trainables.backbone.families.family import ModelFamily
from trainables.methods.adalora import AdaLoRA
from trainables.methods.base import SHARED, Method
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
    """One method of peft. `config(method)`: entries of adapter_config.json. `names`: peft's name of each parameter, by ours.

    joins: maps that are parts of one module can be joined (`joined_maps.py`).
    `same`: parameters of at least two dimensions whose first two are in our order there; they are transposed for all others.
    """

    config: Callable[[Any], dict[str, Any]]
    names: Mapping[str, str]
    joins: bool = False
    same: tuple[str, ...] = ()


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


def _kronecker(method: Any) -> dict[str, Any]:
    return {"peft_type": "LOKR", "decompose_factor": method.factor or -1, **_rank_and_alpha(method)}


def _rank_and_alpha(method: Any) -> dict[str, Any]:
    return {"r": method.r, "alpha": method.strength}


def _bank(method: Any) -> dict[str, Any]:
    sizes = {"r": method.r, "num_vectors": method.vectors, "vector_length": method.length, "topk": method.k}
    return {"peft_type": "VBLORA", **sizes, "vblora_dropout": 0.0}


LORA_NAMES = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
PEFT_METHODS: dict[str, PeftMethod] = {
    "lora": PeftMethod(config=_lora, names=LORA_NAMES, joins=True),
    "rslora": PeftMethod(config=_rslora, names=LORA_NAMES, joins=True),
    "dora": PeftMethod(config=_dora, names=LORA_NAMES, joins=True),
    "pissa": PeftMethod(config=_pissa, names=LORA_NAMES, joins=True),
    "dylora": PeftMethod(config=_lora, names=LORA_NAMES, joins=True),
    "lora_fa": PeftMethod(config=_lora, names=LORA_NAMES, joins=True),
    "lora_plus": PeftMethod(config=_lora, names=LORA_NAMES, joins=True),
    "loha": PeftMethod(
        config=lambda method: {"peft_type": "LOHA", **_rank_and_alpha(method)},
        names={
            "first_down": "hada_w1_b",
            "first_up": "hada_w1_a",
            "second_down": "hada_w2_b",
            "second_up": "hada_w2_a",
        },
    ),
    "lokr": PeftMethod(
        config=_kronecker,
        names={"left": "lokr_w1", "right": "lokr_w2", "right_down": "lokr_w2_b", "right_up": "lokr_w2_a"},
    ),
    "miss": PeftMethod(
        config=lambda method: {"peft_type": "MISS", "r": method.r}, names={"block": "miss_block"}, same=("block",)
    ),
    "vb_lora": PeftMethod(
        config=_bank,
        names={"down": "vblora_logits_A", "up": "vblora_logits_B", "bank": "vblora_vector_bank"},
        same=("down", "bank"),
    ),
    "c3a": PeftMethod(
        config=lambda method: {"peft_type": "C3A", "block_size": method.block_size}, names={"kernel": "c3a_kernel"}
    ),
    "oft": PeftMethod(
        config=lambda method: {"peft_type": "OFT", "r": 0, "oft_block_size": method.block_size},
        names={"angles": "oft_R.weight"},
        same=("angles",),
    ),
    "hra": PeftMethod(
        config=lambda method: {"peft_type": "HRA", "r": method.r}, names={"vectors": "hra_u"}, same=("vectors",)
    ),
    "road": PeftMethod(
        config=lambda method: {"peft_type": "ROAD", "variant": method.variant, "group_size": method.group_size},
        names={"angle": "road_theta", "scale": "road_alpha"},
    ),
    # In a module of several maps, peft's VeRA has one d for all of them, and its AdaLoRA no rank and alpha of their own.
    "vera": PeftMethod(config=_vera, names={"inner": "vera_lambda_d", "outer": "vera_lambda_b"}),
    "adalora": PeftMethod(config=_adalora, names={"down": "lora_A", "up": "lora_B", "singular": "lora_E"}),
    "ia3": PeftMethod(config=lambda method: {"peft_type": "IA3"}, names={"scale": "ia3_l"}, joins=True),
    "layer_norm": PeftMethod(
        config=lambda method: {"peft_type": "LN_TUNING"},
        names={"weight": "ln_tuning_layers.weight", "bias": "ln_tuning_layers.bias"},
        joins=True,
    ),
}


def fits(name: str, family: ModelFamily) -> bool:
    """Return whether peft has this method with the same numbers on models of this family."""
    return name in PEFT_METHODS and (PEFT_METHODS[name].joins or not family.fused)


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
    if "r" in written:
        written |= _joined_ranks(written, layout, family)
    return written


def to_peft(name: str, tensors: Mapping[str, Tensor], layout: ParameterLayout, backbone: Backbone) -> dict[str, Tensor]:
    """Return the tensors of the file adapter_model.safetensors for a trial's tensors by our names."""
    found: dict[str, Tensor] = {}
    apart: dict[int, dict[Any, dict[str, Tensor]]] = {}
    for e in layout.entries:
        value, prefix = tensors[e.name], e.name.rpartition(".")[0]
        if name == "pissa" and prefix != "head":
            value = _with_initial(value, e, layout.method, backbone)
        layer, _, site = prefix.partition(".")
        if site in backbone.family.fused:
            apart.setdefault(int(layer), {}).setdefault(site, {})[e.name.rpartition(".")[2]] = value
        else:
            found[_key(name, e.name, layout, backbone.family)] = _as_theirs(name, e.name, value).contiguous()
    for number, maps in apart.items():
        modules = {tuple(sites_of(backbone.family, site, list(maps))) for site in maps}
        for sites in modules:
            whole = joined({site: maps[site] for site in sites}, number, backbone)
            for last, value in whole.items():
                ours = f"{number}.{sites[0]}.{last}"
                found[_key(name, ours, layout, backbone.family)] = _as_theirs(name, ours, value).contiguous()
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
        value = theirs.get(_key(name, e.name, layout, family))
        if value is None:
            continue
        prefix, _, last = e.name.rpartition(".")
        site: Any = prefix.partition(".")[2]
        if e.is_matrix and not _same(name, e.name):
            value = value.transpose(0, 1)
        elif not e.is_matrix:
            value = value.reshape(-1)
        if site in family.fused:
            value = part_of(value, last, site, sites_of(family, site, _trained_sites(layout)), family, layout.shape)
        found[e.name] = value[tuple(slice(size) for size in e.shape)]  # PiSSA has its initial values behind
    return found


def _joined_ranks(written: Mapping[str, Any], layout: ParameterLayout, family: ModelFamily) -> dict[str, Any]:
    """Return the entries of adapter_config.json with ranks and alphas of modules to which several maps are joined."""
    ranks, alphas, trained = {}, {}, _trained_sites(layout)
    for site in (site for site in trained if site in family.fused):
        number, path = len(sites_of(family, site, trained)), re.escape(family.maps[site])
        ranks[path] = number * written["r"]
        # The scale stays: alpha / r or, with rsLoRA, alpha / sqrt(r).
        alphas[path] = written["lora_alpha"] * (number**0.5 if written.get("use_rslora") else number)
    return {"rank_pattern": ranks, "alpha_pattern": alphas} if ranks else {}


def _trained_sites(layout: ParameterLayout) -> list[Site]:
    """Return the sites at which the method has parameters, in order."""
    found: Any = dict.fromkeys(name.partition(".")[2] for name in layout.names if name.partition(".")[0].isdigit())
    return list(found)


def _key(name: str, ours: str, layout: ParameterLayout, family: ModelFamily) -> str:
    """Return peft's name of the tensor that has the name `ours` here."""
    prefix, _, last = ours.rpartition(".")
    if prefix == "head":
        return f"{PREFIX}.{head_names(family)[ours]}"
    if prefix == SHARED:
        return f"base_model.{PEFT_METHODS[name].names[last]}"
    return f"{PREFIX}.{family.prefix}.{_module(prefix, layout, family)}.{PEFT_METHODS[name].names[last]}"


def _module(prefix: str, layout: ParameterLayout, family: ModelFamily) -> str:
    """Return the path of the module that peft replaces for our parameters "<layer>.<site>" or "norm.<number>"."""
    first, _, rest = prefix.partition(".")
    if first == "norm":
        return family.norm_paths(layout.shape.layers)[int(rest)]
    site: Any = rest
    return family.map_path(int(first), MODULES.get(site, site))


def _pattern(layout: ParameterLayout, family: ModelFamily, only: str = "") -> str:
    """Return a regular expression that matches the full paths of the modules that peft replaces, and no other ones.

    Modules that every layer has are one path with any number; a module that some layers lack is named layer by layer.
    """
    prefixes = dict.fromkeys(p for p in layout.names if p not in ("head", SHARED) and p.endswith(only))
    paths: dict[str, set[str]] = {}
    for path in (re.escape(_module(p, layout, family)) for p in prefixes):
        paths.setdefault(re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", path), set()).add(path)
    found = ([general] if len(those) == layout.shape.layers else sorted(those) for general, those in paths.items())
    return rf"{re.escape(family.prefix)}\.({'|'.join(path for each in found for path in each)})"


def _same(name: str, parameter: str) -> bool:
    return parameter.rpartition(".")[2] in PEFT_METHODS[name].same


def _as_theirs(name: str, parameter: str, value: Tensor) -> Tensor:
    """Return a tensor of the method `name` by the full name `parameter`, in peft's shape."""
    if value.dim() > 1:
        return value if _same(name, parameter) else value.transpose(0, 1)
    prefix, _, last = parameter.rpartition(".")
    if name == "ia3" and last == "scale":
        return value[None] if prefix.endswith("ffn.hidden") else value[:, None]
    return value[:, None] if last == "singular" else value


def _with_initial(value: Tensor, e: ParameterSlice, method: Method, backbone: Backbone) -> Tensor:
    """Return PiSSA's factor with its initial one behind it: [n, 2 r] for A, and [2 r, n] for B, whose initial one is negated."""
    prefix, _, last = e.name.rpartition(".")
    layer, _, site = prefix.partition(".")
    initial = frozen_initial_values(method, backbone, int(layer), site)[last].cpu()  # type: ignore[arg-type]
    return torch.cat([value, initial], 1) if last == "down" else torch.cat([value, -initial])
