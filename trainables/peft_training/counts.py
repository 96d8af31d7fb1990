"""Counts the parameters of a peft network by looking at it: there are no formulas for all of peft's configurations."""

from __future__ import annotations

from typing import Any

from search_spaces.records import Counts
from trainables.peft_training.networks import is_head, trained_parameters


def count_trained(network: Any, total: int) -> Counts:
    """Return the numbers of parameters of a network. `total`: of the pretrained model.

    Active and stored are what peft saves of it: without the parts that only training needs, such as a prompt's encoder, and with
    frozen tensors that peft saves, such as VeRA's projections.
    """
    from peft import get_peft_model_state_dict

    trained = trained_parameters(network)
    module = [parameter for name, parameter in trained if not is_head(name)]
    saved = sum(tensor.numel() for tensor in get_peft_model_state_dict(network).values())
    return Counts(
        weights=sum(parameter.numel() for parameter in module if parameter.ndim > 1),
        module=sum(parameter.numel() for parameter in module),
        trained=sum(parameter.numel() for _, parameter in trained),
        total=total,
        active=saved,
        stored_bytes=4 * saved,
    )
