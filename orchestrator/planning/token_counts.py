"""Estimates how many tokens an epoch of a task has, from a sample of its texts if they are on this machine.

Uses only the standard library and the package tokenizers: no numpy, no transformers, no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.language import FileTask, Recipe, task_name
from trainables.backbone import models
from trainables.tasks.splits import SHARE
from trainables.tasks.task_data import CutCount, MissingData, Texts
from trainables.tasks.task_loading import describe, read

# At most this many texts are tokenised, evenly spaced over the training file.
SAMPLE = 2000


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """Size of the training split of a task for one tokenizer.

    examples: number of examples. mean: tokens per example, and cut: how many are too long, of a sample of the train file.
    """

    examples: int
    mean: float
    cut: CutCount

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
    files = sum(part is not None for part in (found.validation, found.test))
    examples = train_examples(len(found.train), 2 - files, recipe.limit("train_examples", task_name(task)))
    return count_texts(found.train, examples, path, recipe.max_length)


def count_texts(texts: Texts, examples: int, model: Path, max_length: int) -> TokenCount:
    """Return the token count of a training split of this size, from a sample of texts of its kind."""
    lengths = _lengths(texts, model)
    mean = sum(min(length, max_length) for length in lengths) / len(lengths)
    return TokenCount(examples=examples, mean=mean, cut=CutCount.of(lengths, max_length))


def train_examples(number: int, drawn: int, most: int) -> int:
    """Return the size of the training split of a data set whose training file has `number` examples.

    `drawn`: how many of the validation and test splits are taken from them. `most` is the recipe's limit, 0 for none.
    """
    remaining = number
    for _ in range(drawn):
        remaining -= round(SHARE * remaining)
    return min(remaining, most) if most else remaining


def _is_far(task: str | FileTask, data_dir: Path | None) -> bool:
    """Return whether reading the task needs the Hub or a library for Parquet files."""
    if isinstance(task, FileTask):
        return any(name.lower().endswith(".parquet") for name in (task.train, task.validation, task.test) if name)
    return data_dir is None and describe(task).source in ("glue", "superglue")


def _lengths(texts: Texts, model: Path) -> list[int]:
    """Return the number of tokens of a sample of the examples, uncut, special tokens included."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    step = -(-len(texts) // SAMPLE)
    first = texts.first[::step]
    inputs = first if texts.second is None else list(zip(first, texts.second[::step], strict=True))
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(inputs)]
