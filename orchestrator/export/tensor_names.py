"""The names that a trial's parameters have in exported files.

In files of our own layout they keep the names of `ParameterLayout`, such as "0.attention.output.down". The head is exported under
the names that it has in transformers' model for sequence classification, where a linear map's weight is [out, in].

Legend: D width, C outputs of the head, P parameters of the trial.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestrator.ledger import Damaged
from trainables.backbone import weight_files
from trainables.backbone.families import FAMILIES
from trainables.backbone.families.family import ModelFamily
from trainables.backbone.models import Model
from trainables.training.parameter_layout import ParameterLayout

OUT, OUT_BIAS = "head.out", "head.out_bias"


def named(layout: ParameterLayout, row: Tensor) -> dict[str, Tensor]:
    """Return a trial's tensors by name, as views of its row [P]. Raises Damaged if the row does not belong to this layout."""
    if row.shape != (layout.size,):
        raise Damaged(f"the checkpoint holds {tuple(row.shape)} values, and the trial has {layout.size} parameters")
    return {e.name: row[e.start : e.stop].view(e.shape) for e in layout.entries}


def to_row(layout: ParameterLayout, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the row [P] of these tensors. Raises Damaged if one is missing or has another shape."""
    row = torch.empty(layout.size)
    for e in layout.entries:
        tensor = tensors.get(e.name)
        if tensor is None or tuple(tensor.shape) != e.shape:
            raise Damaged(f"tensor {e.name} should be {list(e.shape)} and is {_shape(tensor)}")
        row[e.start : e.stop] = tensor.reshape(-1)
    return row


def head_names(family: ModelFamily) -> dict[str, str]:
    """Return transformers' names of the head's tensors by ours. A dense layer is there only if the family trains one."""
    names = {OUT: f"{family.head.out}.weight"}
    if family.head.biases:
        names[OUT_BIAS] = f"{family.head.out}.bias"
    if family.head.dense:
        names["head.dense"] = f"{family.head.dense}.weight"
        if family.head.dense_biases:
            names["head.dense_bias"] = f"{family.head.dense}.bias"
    if family.head.norm:
        names["head.norm"] = f"{family.head.norm}.weight"
    return names


def unquantized(family: ModelFamily) -> list[str]:
    """Return the paths, in transformers' classifier, of linear maps that are not in a layer: a pretrained pooler and the head."""
    pooler = family.pretrained_pooler or family.head.pooler
    head = {path.partition(".")[0] for path in head_names(family).values()}
    return sorted({*head, *([f"{family.prefix}.{pooler}"] if pooler else [])})


def in_units(tensors: Mapping[str, Tensor], mean: float, std: float) -> dict[str, Tensor]:
    """Return the tensors with a head whose output y is in the targets' unit: mean + std * y of the head that was trained."""
    out, bias = tensors[OUT].double() * std, tensors[OUT_BIAS].double() * std + mean
    return {**tensors, OUT: out.float(), OUT_BIAS: bias.float()}


def lacks_pooler(model: Model) -> bool:
    """Return whether the head reads a pooler that the model's files lack. Training then drew it at random, from a fixed seed."""
    path, prefix = FAMILIES[model.family].head.pooler, FAMILIES[model.family].prefix
    shapes = weight_files.tensor_shapes(model.path) if path else {}
    return path is not None and not {f"{path}.weight", f"{prefix}.{path}.weight"} & shapes.keys()


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
