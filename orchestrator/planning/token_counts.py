"""How many tokens an epoch of a task has, before anything is prepared: from a sample of its texts, if they are here already.

Standard library and the tokenizer alone: no numpy, no transformers, no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces.language import FileTask, Recipe
from trainables.backbone import models
from trainables.tasks.splits import SHARE
from trainables.tasks.task_data import MissingData, Texts
from trainables.tasks.task_loading import describe, read

# Texts that are tokenised at most, evenly spread over the file.
SAMPLE = 2000


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """The train part of a task for one tokenizer: its examples, and tokens per example as estimated from a sample."""

    examples: int
    mean: float

    @property
    def tokens(self) -> float:
        """Of one epoch."""
        return self.examples * self.mean


def length(task: str | FileTask, model: str, recipe: Recipe, data_dir: Path | None, folder: Path) -> TokenCount | None:
    """None where texts or tokenizer are not on this machine, or would take long to read (the Hub's, Parquet)."""
    path = models.local(model)
    if path is None or not (path / "tokenizer.json").is_file() or _is_far(task, data_dir):
        return None
    try:
        train, test, _ = read(task, data_dir, folder)
    except MissingData:
        return None
    examples = train_examples(len(train), test is not None, recipe.train_examples)
    return TokenCount(examples=examples, mean=_mean(train, path, recipe.max_length))


def train_examples(number: int, has_test: bool, most: int) -> int:
    """Examples of the train part that a split leaves of `number`; `most`: the recipe's cut, 0 for none."""
    rest = number if has_test else number - round(SHARE * number)
    rest -= round(SHARE * rest)
    return min(rest, most) if most else rest


def _is_far(task: str | FileTask, data_dir: Path | None) -> bool:
    """Whether reading it would ask the Hub, or load a library for Parquet."""
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
