"""Outputs of a peft network on a split.

Legend: n examples, C outputs of the head.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from search_spaces.language import Precision
from trainables.peft_training.batches import Padding, by_length
from trainables.tasks.task_data import Split
from trainables.training.activity import record_activity

# Examples that are evaluated at a time.
EVAL_EXAMPLES = 64


@torch.no_grad()
def head_outputs(network: Any, padding: Padding, split: Split, outputs: int) -> np.ndarray:
    """Return the outputs [n, C] of the head for the n examples of a split, without dropout. `outputs`: C."""
    network.eval()
    device = next(network.parameters()).device
    found = np.empty((len(split), outputs), np.float32)
    for chosen in by_length(split, EVAL_EXAMPLES):
        for part, inputs in padding.batches(split, chosen, device):
            found[part] = network(**inputs).logits.float().cpu().numpy()
            record_activity()
    return found


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Context in which torch computes matrix products in this precision."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)
