"""Estimates how many tokens an epoch of a task has, from a sample of its texts if they are on this machine.

Uses only the standard library and the package tokenizers: no numpy, no transformers, no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.language import FileTask, Recipe
from trainables.backbone import models
from trainables.tasks.splits import SHARE
from trainables.tasks.task_data import MissingData, Texts
from trainables.tasks.task_loading import describe, read

# At most this many texts are tokenised, evenly spaced over the training file.
SAMPLE = 2000


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """Size of the training split of a task for one tokenizer.

    examples: number of examples. mean: tokens per example, estimated from a sample.
    """

    examples: int
    mean: float

    @property
    def tokens(self) -> float:
        """Tokens of one epoch."""
        return self.examples * self.mean


def count_tokens(
    task: str | FileTask, model: str, recipe: Recipe, data_dir: Path | None, folder: Path
) -> TokenCount | None:
    """Return the token count of a task; None if texts or tokenizer are not on this machine or slow to read (Hub, Parquet)."""
    path = models.local(model)
    if path is None or not (path / "tokenizer.json").is_file() or _is_far(task, data_dir):
        return None
    try:
        found = read(task, data_dir, folder)
    except MissingData:
        return None
    examples = train_examples(len(found.train), found.test is not None, recipe.train_examples)
    return TokenCount(examples=examples, mean=_mean(found.train, path, recipe.max_length))


def train_examples(number: int, has_test: bool, most: int) -> int:
    """Return the size of the training split of a data set whose training file has `number` examples.

    The validation split, and the test split unless `has_test`, are taken from them. `most` is the recipe's limit, 0 for none.
    """
    remaining = number if has_test else number - round(SHARE * number)
    remaining -= round(SHARE * remaining)
    return min(remaining, most) if most else remaining


def _is_far(task: str | FileTask, data_dir: Path | None) -> bool:
    """Return whether reading the task needs the Hub or a library for Parquet files."""
    if isinstance(task, FileTask):
        return any(name.lower().endswith(".parquet") for name in (task.train, task.test) if name)
    return data_dir is None and describe(task).source == "glue"


def _mean(texts: Texts, model: Path, max_length: int) -> float:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.no_padding()
    step = -(-len(texts) // SAMPLE)
    first = texts.first[::step]
    inputs = first if texts.second is None else list(zip(first, texts.second[::step], strict=True))
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(inputs)) / len(first)
