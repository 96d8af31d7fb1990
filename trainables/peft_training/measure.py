"""Checks rows of peft and counts what they train for a plan: `python -m trainables.peft_training.measure`.

In this process of its own, so that the process that plans loads neither torch nor peft. Standard input is a JSON list of
{"settings": of a row, "model": folder or null, "outputs": [[number of outputs, whether it is a regression], ...]}. One JSON line
per element goes to standard output: {"error": what peft refuses}, or {"trained": [numbers of trained parameters]}, empty where
they are not known.

Networks are built on torch's device "meta", which holds shapes without values, so that the size of a model does not matter.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from search_spaces.redaction import clean_line
from trainables.methods.peft_row import PeftRow
from trainables.peft_training.configuration import make_configuration
from trainables.peft_training.networks import FULL_SCHEDULE, attach, classifier_config, trained_parameters

# Modules that cannot be built without values are built with random ones if the model is at most this large.
MOST_VALUES = 250_000_000


def check(settings: dict[str, Any], model: Path | None, heads: list[tuple[int, bool]]) -> list[int]:
    """Return how many parameters a row trains, for each head, or [] if that is not known. Raises ValueError if it is refused."""
    row = PeftRow(config=settings)
    make_configuration(row, FULL_SCHEDULE)
    if model is None:
        return []
    found = [_count(row, model, outputs, regression) for outputs, regression in heads]
    return [number for number in found if number is not None]


def _count(row: PeftRow, model: Path, outputs: int, regression: bool) -> int | None:
    config = classifier_config(model, outputs, regression, -1.0)
    with torch.device("meta"):
        base = transformers.AutoModelForSequenceClassification.from_config(config)
        size = sum(parameter.numel() for parameter in base.parameters())
        try:
            network = attach(base, row, FULL_SCHEDULE)
        except Exception as error:
            if not _needs_values(error):
                raise
            network = None
    if network is None:
        if size > MOST_VALUES:
            return None
        network = attach(transformers.AutoModelForSequenceClassification.from_config(config), row, FULL_SCHEDULE)
    _try_step(network, row)
    return sum(parameter.numel() for _, parameter in trained_parameters(network))


def _try_step(network: Any, row: PeftRow) -> None:
    """Raise ValueError if a training step of the network fails for another reason than that it holds no values."""
    device = next(network.parameters()).device
    tokens = torch.ones(2, 8, dtype=torch.long, device=device)
    labels = torch.zeros(2, dtype=torch.float if network.config.num_labels == 1 else torch.long, device=device)
    try:
        network.train()
        network(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels).loss.backward()
    except Exception as error:
        if not _needs_values(error):
            reason = str(error).strip() or type(error).__name__
            raise ValueError(f"peft's {row.peft_type} cannot be trained on this model: {reason[:400]}") from None


def _needs_values(error: Exception) -> bool:
    """Return whether an operation failed because tensors on the device "meta" have no values."""
    return isinstance(error, NotImplementedError) or "meta" in str(error).lower()


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    for wanted in json.load(sys.stdin):
        answer: dict[str, Any]
        try:
            model = Path(wanted["model"]) if wanted["model"] else None
            answer = {"trained": check(wanted["settings"], model, [(n, r) for n, r in wanted["outputs"]])}
        except Exception as error:  # whatever it is, it is the answer for this row
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            answer = {"error": clean_line(text)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
