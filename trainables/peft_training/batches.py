"""Mini-batches of a split as transformers' classifiers take them: padded to the longest example, with an attention mask.

Legend: B examples of a batch, L tokens of the longest.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.backbone.families import FAMILIES
from trainables.methods.peft_row import PeftRow
from trainables.tasks.task_data import Split, TaskData


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How the examples of a trial become batches.

    pad: the token after the end of short examples. token_types: whether the model takes token types. first_position: of an
    example's first token, where a model would find it by counting tokens other than its padding token; else 0. equal_lengths:
    a batch is computed in parts of equally long examples, without padding. It is needed where peft hands the classifier
    embeddings instead of tokens, from which a decoder cannot tell the last token of an example.
    """

    pad: int
    token_types: bool
    first_position: int = 0
    equal_lengths: bool = False

    def batches(
        self, split: Split, chosen: np.ndarray, device: torch.device
    ) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Yield (examples, inputs [B, L] by name) that together hold the `chosen` examples of the split."""
        lengths = split.offsets[chosen + 1] - split.offsets[chosen]
        parts = [chosen[lengths == each] for each in np.unique(lengths)] if self.equal_lengths else [chosen]
        for part in parts:
            yield part, {name: tensor.to(device) for name, tensor in self.inputs(split, part).items()}

    def inputs(self, split: Split, chosen: np.ndarray) -> dict[str, Tensor]:
        """Return the arguments [B, L] by name of a batch of these examples."""
        lengths = split.offsets[chosen + 1] - split.offsets[chosen]
        shape = len(chosen), int(lengths.max())
        inputs = {
            "input_ids": torch.full(shape, self.pad),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "token_type_ids": torch.zeros(shape, dtype=torch.long),
        }
        for row, (example, length) in enumerate(zip(chosen, lengths, strict=True)):
            tokens = slice(split.offsets[example], split.offsets[example] + length)
            inputs["input_ids"][row, :length] = torch.from_numpy(split.ids[tokens].astype(np.int64))
            inputs["token_type_ids"][row, :length] = torch.from_numpy(split.token_types[tokens].astype(np.int64))
            inputs["attention_mask"][row, :length] = 1
        if self.first_position:
            inputs["position_ids"] = (torch.arange(shape[1]) + self.first_position).expand(shape).contiguous()
        return inputs if self.token_types else {k: v for k, v in inputs.items() if k != "token_type_ids"}


def padding_for(base: Any, row: PeftRow, data: TaskData) -> Padding:
    """Return how the data become batches for this classifier, and set the padding token in its config.

    A decoder's head finds the last token of an example as the last one that is no padding token: it gets another one if an
    example ends with the usual one.
    """
    config = base.config
    family = FAMILIES.get(config.model_type)
    taken = set(inspect.signature(base.forward).parameters)
    last = {int(i) for split in (data.train, data.validation, data.test) for i in split.ids[split.offsets[1:] - 1]}
    if config.pad_token_id in last:
        config.pad_token_id = next(i for i in range(config.vocab_size) if i not in last)
    return Padding(
        pad=int(config.pad_token_id),
        token_types="token_type_ids" in taken and bool(getattr(config, "type_vocab_size", 0)),
        # peft leaves positions to the model where it puts a prompt before the tokens.
        first_position=family.first_position if family and not row.virtual_tokens else 0,
        equal_lengths=row.peft_type in ("PROMPT_TUNING", "P_TUNING") and _reads_last(base),
    )


def by_length(split: Split, most: int) -> Sequence[np.ndarray]:
    """Return all examples of a split, sorted by length, in batches of at most `most`."""
    order = np.argsort(np.diff(split.offsets), kind="stable")
    return np.array_split(order, -(-len(order) // most))


def _reads_last(base: Any) -> bool:
    """Return whether the classifier's head reads the last token: it then has one linear map on all tokens, named "score"."""
    return hasattr(base, "score")
