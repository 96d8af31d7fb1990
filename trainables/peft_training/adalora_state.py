"""What peft's AdaLoRA keeps between steps beside its parameters, as tensors for a checkpoint.

Legend: P trained values of the trial.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.peft_training.networks import trained_parameters

# Rows of the tensor: smoothed sensitivity, smoothed uncertainty, and whether an entry's rank was kept by the last allocation.
ROWS = 3


def allocate(network: Any, step: int) -> None:
    """Update the ranks after an optimiser step, number `step` from 1, while its gradients are still there."""
    network.base_model.update_and_allocate(step)


def memory_of(network: Any) -> Tensor:
    """Return the state of the rank allocation as [3, P]. Where there is none yet, sensitivities are NaN and all ranks kept."""
    allocator, pattern = network.base_model.rankallocator, _pattern(network)
    rows: list[Tensor] = []
    for name, parameter in _inner(network):
        nothing = torch.full_like(parameter, torch.nan)
        kept = torch.ones_like(parameter)
        if name in pattern:
            kept *= torch.tensor(pattern[name], dtype=kept.dtype, device=kept.device).view(-1, 1)
        each = (allocator.exp_avg_ipt.get(name, nothing), allocator.exp_avg_unc.get(name, nothing), kept)
        rows.append(torch.stack([tensor.detach().flatten() for tensor in each]))
    return torch.cat(rows, dim=1)


def set_memory(network: Any, memory: Tensor) -> None:
    """Set the state of the rank allocation from `memory_of` of the same trial."""
    allocator, config = network.base_model.rankallocator, network.peft_config["default"]
    parameters = _inner(network)
    parts = memory.split([parameter.numel() for _, parameter in parameters], dim=1)
    pattern: dict[str, list[bool]] = {}
    for (name, parameter), part in zip(parameters, parts, strict=True):
        sensitivity, uncertainty, kept = (row.view(parameter.shape).clone() for row in part)
        if not sensitivity.isnan().any():
            allocator.ipt[name] = torch.zeros_like(sensitivity)
            allocator.exp_avg_ipt[name], allocator.exp_avg_unc[name] = sensitivity, uncertainty
        if "lora_E" in name:
            pattern[name] = kept.bool().view(-1).tolist()
    if not all(all(each) for each in pattern.values()):
        config.rank_pattern = pattern


def _inner(network: Any) -> list[tuple[str, Any]]:
    """Return the trained parameters by the names that the rank allocation uses, those in the classifier."""
    prefix = "base_model.model."
    return [(name.removeprefix(prefix), parameter) for name, parameter in trained_parameters(network)]


def _pattern(network: Any) -> dict[str, Any]:
    """Return which ranks the last allocation kept, by parameter; empty before the first one."""
    return network.peft_config["default"].rank_pattern or {}
