"""Looks at a user's file and decides all that a space for it needs, with reasons. Loads neither torch nor Ray."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.execution.cluster import count_cores
from orchestrator.execution.gpus import find_gpus
from orchestrator.new_space.columns import Roles, find_roles
from orchestrator.new_space.labels import MetricChoice, choose_metric
from orchestrator.new_space.sizes import Size, choose_size
from orchestrator.new_space.table_format import TableFormat, find_format
from orchestrator.planning.token_counts import TokenCount, count_texts, train_examples
from search_spaces.language import Recipe
from trainables.backbone import models
from trainables.tasks import TASKS
from trainables.tasks.file_tables import FileTable
from trainables.tasks.files import is_missing
from trainables.tasks.forms.class_names import class_name
from trainables.tasks.splits import SHARE
from trainables.tasks.task_data import CutCount, Texts

MODEL = "minilm"
# For texts that are mostly not in Latin letters, which MODEL's tokenizer does not know.
MULTILINGUAL = "bert-base-multilingual-cased"
# Tokens per word, where the model's tokenizer is not on this machine.
TOKENS_PER_WORD = 1.4
# If more rows than this repeat an earlier one, copies are kept in one split.
MOST_COPIES = 0.01
# What stands for "train" in the names of test files, in this order.
TEST_WORDS = ("test", "dev", "validation", "valid", "val", "eval")
# Names of files that do not name a task.
NO_NAMES = {"train", "training", "data", "dataset", "all"}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """All that a space file says, and reasons.

    name: of the task. test: the test file, None if a tenth of the rows is set aside; test_found: whether it was looked for.
    rows: all of the train file; missing: those without a text or label; copies: those that repeat the texts of an earlier one;
    contradictions: texts that occur with different labels.
    foreign: whether the texts are mostly not in Latin letters. tokens: of the training split, an estimate.
    """

    name: str
    table: TableFormat
    roles: Roles
    metric: MetricChoice
    test: Path | None
    test_found: bool
    rows: int
    missing: int
    copies: int
    contradictions: int
    model: str
    foreign: bool
    tokens: TokenCount
    size: Size
    gpus: int
    cores: int

    @property
    def title(self) -> str:
        """What the report calls the comparison: the file's name as it is, or the task's if the file's says nothing."""
        return self.name if self.table.path.stem.lower() in NO_NAMES else self.table.path.stem

    @property
    def num_test(self) -> int | None:
        """How many examples the test split has if it is drawn, None if it is a file."""
        return None if self.test else round(SHARE * (self.rows - self.missing))

    @property
    def grouped_by_text(self) -> bool:
        return self.copies > MOST_COPIES * (self.rows - self.missing)


def make_draft(path: Path, test: Path | None, text: str, label: str, text_pair: str) -> Draft:
    """Return the draft of a space for this file. `test` is the test file, if the user names one; "" stands for no column.

    Raises ValueError for a file that cannot be read, or whose columns do not tell what they are.
    """
    table = find_format(path)
    rows = table.read()
    roles = find_roles(rows, text, label, text_pair)
    texts, labels = _complete(rows, roles)
    if len(texts) < 30:
        raise ValueError(
            f"{path}: {len(texts)} rows have a text and a label; at least 30 are needed to compare methods"
        )
    found = test or _find_test(path, table, roles, set(labels))
    foreign = _is_foreign(texts)
    model = MULTILINGUAL if foreign and models.local(MULTILINGUAL) else MODEL
    tokens = _tokens(texts, train_examples(len(texts), 1 if found else 2, 0), model)
    shape = models.peek(model) or models.shape_of(models.KNOWN_CONFIGS["bert-base-uncased"])
    gpus, cores = find_gpus(None)[0], count_cores()
    return Draft(
        name=_task_name(path),
        table=table,
        roles=roles,
        metric=choose_metric(roles.label, roles.regression),
        test=found,
        test_found=test is None,
        rows=len(rows.rows),
        missing=len(rows.rows) - len(texts),
        copies=len(texts) - len(set(texts)),
        contradictions=len(set(zip(texts, labels, strict=True))) - len(set(texts)),
        model=model,
        foreign=foreign,
        tokens=tokens,
        size=choose_size(tokens.examples, round(SHARE * len(texts)), tokens.mean, shape, gpus, cores),
        gpus=gpus,
        cores=cores,
    )


def _complete(rows: FileTable, roles: Roles) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the texts, with their second texts or "", and the names of the labels, of the rows that have both."""
    seconds: Sequence[object] = roles.text_pair.values if roles.text_pair else ["-"] * len(rows.rows)
    texts, labels = [], []
    for first, second, label in zip(roles.text.values, seconds, roles.label.values, strict=True):
        if not any(map(is_missing, (first, second, label))):
            texts.append((str(first), str(second) if roles.text_pair else ""))
            labels.append(class_name(label))
    return texts, labels


def _find_test(path: Path, table: TableFormat, roles: Roles, known: set[str]) -> Path | None:
    """Return the file beside this one whose name says that it is its test file, if it has the same columns and labels."""
    for word in TEST_WORDS:
        stems = [re.sub("train(ing)?", word, path.stem, flags=re.IGNORECASE)] if "train" in path.stem.lower() else []
        stems += [f"{path.stem}{mark}{word}" for mark in "._-"]
        for stem in stems:
            other = path.with_name(stem + path.suffix)
            if other != path and other.is_file() and _fits(other, table, roles, known):
                return other
    return None


def _fits(path: Path, table: TableFormat, roles: Roles, known: set[str]) -> bool:
    try:
        rows = table.read(path)
    except ValueError:
        return False
    place = rows.columns.index(roles.label.name)
    labels = {class_name(row[place]) for row in rows.rows if not is_missing(row[place])}
    return bool(labels) and (roles.regression or labels <= known) and len(rows.rows) >= 20


def _is_foreign(texts: Sequence[tuple[str, str]]) -> bool:
    letters = Counter(letter < "ɐ" for first, _ in texts[:2000] for letter in first if letter.isalpha())
    return letters[False] > letters[True]


def _tokens(texts: Sequence[tuple[str, str]], examples: int, model: str) -> TokenCount:
    """Return the token count of the training split, by the model's tokenizer or, if that is not here, by words."""
    most, folder = Recipe().max_length, models.local(model)
    if folder and (folder / "tokenizer.json").is_file():
        second = [pair for _, pair in texts] if texts[0][1] else None
        sample = Texts(first=[first for first, _ in texts], second=second, labels=[0.0] * len(texts))
        return count_texts(sample, examples, folder, most)
    lengths = [2 + round(TOKENS_PER_WORD * len(" ".join(pair).split())) for pair in texts]
    mean = sum(min(most, length) for length in lengths) / len(lengths)
    return TokenCount(examples=examples, mean=mean, cut=CutCount.of(lengths, most))


def _task_name(path: Path) -> str:
    """Return a name for the task from that of its file, or of its folder if the file's name says nothing."""
    stem = path.stem
    if stem.lower() in NO_NAMES:
        stem = path.absolute().parent.name or stem
    stem = without_accents(stem).lower()
    name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"[._-]?train(ing)?$", "", stem) or stem).strip("_")[:40]
    name = name if re.match("[a-z]", name) else f"task_{name}".rstrip("_")
    return f"{name}_file" if name in TASKS else name


def without_accents(text: str) -> str:
    """Return the text with the base letters of accented ones, such as "Marz" for "März"."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def relative(path: Path, folder: Path) -> str:
    """Return the path from a folder, absolute if it does not lie below the folder."""
    found = os.path.relpath(path.absolute(), folder.absolute())
    return str(path.absolute()) if found.startswith("..") else found
