"""Makes transformers' model for sequence classification from trials whose result is simply other weights of the same modules.

These are the methods that train backbone weights (`WeightMethod`), or parameters from which these are computed, and those in
`MERGED`. What they have trained is written into the modules; nothing of the method is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.export.tensor_names import head_names
from trainables.backbone.backbone import Backbone
from trainables.methods.backbone_weights import BACKBONE, WeightMethod
from trainables.methods.base import Method
from trainables.methods.bitfit import BitFitSmall
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.stacked_parameters import StackedParameters

# Of the methods that share a backbone: a trained head alone, and vectors that are added to biases.
MERGED = ("linear_probe", "bitfit", "bitfit_small")


def fits(name: str, method: Method, backbone: Backbone) -> bool:
    """Return whether a model of transformers has the trained weights: the head has to be the family's own.

    Maps without biases have no place for the biases that BitFit trains.
    """
    if isinstance(method, BitFitSmall):
        sites = [site for site in method.sites if site in backbone.shape.maps]
        return name in MERGED and all(backbone.map_at(0, site).bias is not None for site in sites)
    return method.head_reads == "own" and (isinstance(method, WeightMethod) or name in MERGED)


@torch.no_grad()
def classifier(
    layout: ParameterLayout,
    tensors: Mapping[str, Tensor],
    parameters: StackedParameters,
    backbone: Backbone,
    config: Any,
) -> nn.Module:
    """Return the model with the trained weights and this config.

    `tensors`: the trial's tensors by our names; `parameters`: the same of this trial alone on `backbone`, whose weights change.
    """
    import transformers

    if parameters.private_weights:
        parameters.named_tensors(slice(None))  # sets computed weights
    for name, value in tensors.items():
        if not name.startswith((BACKBONE, "head.")):
            _merge(name, value, backbone)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.base_model.load_state_dict(backbone.module.state_dict())
    for ours, theirs in head_names(backbone.family).items():
        model.get_parameter(theirs).copy_(tensors[ours].T if tensors[ours].dim() > 1 else tensors[ours])
    return model.eval()


def _merge(name: str, value: Tensor, backbone: Backbone) -> None:
    """Write one trained vector of BitFit into the module that it belongs to."""
    prefix, _, last = name.rpartition(".")
    first, _, rest = prefix.partition(".")
    if first == "norm":
        getattr(backbone.norms[int(rest)], last).copy_(value)
    else:
        site: Any = rest
        bias = backbone.map_at(int(first), site).bias
        assert last == "delta", name
        assert bias is not None, name
        bias.add_(value)
