"""Writes and reads tokens files. Each is written once per (texts and split, tokenizer, length); device workers read it.

A tokens file is a safetensors file with the arrays, the task and a checksum. Its name contains a hash of all that determines
its content.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.tasks.forms.form import Form
from trainables.tasks.task_data import CutCount, Loaded, Split, Task, TaskData, Texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# Version of the file format. Increase it when a change of the code writes another file for the same texts.
FORMAT = 2
PARTS = ("train", "validation", "test")
# Examples that are tokenised at once: the tokenizer's own records take kilobytes for each, gigabytes for MNLI as a whole.
AT_ONCE = 20_000
ARRAYS = {"ids": np.int32, "token_types": np.int8, "offsets": np.int64, "labels": np.float32}
TOKENIZER_FILES = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


class DamagedTokens(ValueError):
    """A tokens file cannot be read, or its content differs from what was written."""


@dataclass(frozen=True, kw_only=True)
class TokensSummary:
    """mean_length: tokens per training example. cut: by split, how many examples were cut."""

    mean_length: float
    cut: Mapping[str, CutCount]


@dataclass(frozen=True, kw_only=True)
class TokenizerUse:
    """What a tokenizer has to be told. token_types: of its model, 0 for none. pads: whether it has a padding token.

    separator: put before the second text of a pair; "" if the tokenizer separates the two itself, as those of encoders do.
    """

    token_types: int
    pads: bool
    separator: str


def tokenizer_use(folder: Path, max_length: int) -> TokenizerUse:
    """Return how the tokenizer in this folder is used. Raises ValueError as `prepare`."""
    tokenizer = _tokenizer(folder, max_length)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return TokenizerUse(
        token_types=config.get("type_vocab_size", 0),
        pads=tokenizer.pad_token is not None,
        separator=_separator(tokenizer),
    )


def prepare(loaded: Loaded, tokenizer_dir: str, max_length: int, cache: Path) -> Path:
    """Return the path of the task's tokens file in the folder `cache`, which is written unless a good one exists.

    `max_length`: largest number of tokens of an example, special ones included; of a pair, the longer text is cut first. Raises
    ValueError if the tokenizer cannot be loaded, allows fewer tokens or does not fit the model in the same folder.
    """
    folder = Path(tokenizer_dir)
    path = place(loaded.task, loaded.fingerprint, folder, max_length, cache)
    if _is_good(path):
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(path.with_suffix(".lock")):
        if not _is_good(path):
            tokenizer = _tokenizer(folder, max_length)
            types = _token_types(folder)
            texts = {part: getattr(loaded, part) for part in PARTS}
            splits = {part: _tokenise(texts[part], tokenizer, max_length, types, loaded.task.form) for part in PARTS}
            _check_ids(folder, splits)
            cut = {part: _cut_count(texts[part], splits[part], tokenizer, max_length) for part in PARTS}
            _write(path, loaded, splits, cut)
    return path


def tokenise(texts: Texts, folder: Path, max_length: int, form: Form) -> Split:
    """Return texts tokenised as in a tokens file. `folder`: of the model and its tokenizer. Raises ValueError as `prepare`."""
    split = _tokenise(texts, _tokenizer(folder, max_length), max_length, _token_types(folder), form)
    _check_ids(folder, {"texts": split})
    return split


def _is_good(path: Path) -> bool:
    """Return whether there is a tokens file that can be read; log a warning if there is one that cannot."""
    if not path.exists():
        return False
    try:
        read(path)
    except DamagedTokens as error:
        log.warning("%s; it is made again", error)
        return False
    return True


def place(task: Task, fingerprint: str, tokenizer: Path, max_length: int, cache: Path) -> Path:
    """Return the path of a tokens file. `fingerprint`: that of texts and split; `tokenizer`: the tokenizer's folder."""
    decides = [FORMAT, fingerprint, _fingerprint(tokenizer), max_length, task.to_record()]
    name = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    return cache / f"{task.name}-{name}.safetensors"


def read(path: Path) -> TaskData:
    """Return the content of a tokens file. Raises DamagedTokens if the file is missing, damaged or has another format."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        good = header["digest"] == _digest(arrays, header)
        if not good:
            raise ValueError("its digest does not match")
        task = Task.from_record(json.loads(header["task"]))
        splits = {part: Split(**{name: arrays[f"{part}.{name}"] for name in ARRAYS}) for part in PARTS}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedTokens(f"{path}: tokenised data cannot be read ({type(error).__name__}: {error})") from None
    return TaskData(task=task, fingerprint=header["fingerprint"], **splits)


def summarise(path: Path) -> TokensSummary:
    """Return the summary of a good tokens file (`prepare` checks it) from its header, without reading the arrays."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tokens, examples = (math.prod(file.get_slice(f"train.{name}").get_shape()) for name in ("ids", "labels"))
        cut = json.loads(file.metadata()["cut"])
    return TokensSummary(mean_length=tokens / examples, cut={part: CutCount(**count) for part, count in cut.items()})


def _fingerprint(folder: Path) -> str:
    """Return a hash of the tokenizer's files in this folder."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _tokenizer(folder: Path, max_length: int) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no tokenizer can be loaded from there: {str(error)[:300]}") from None
    if max_length > tokenizer.model_max_length:
        raise ValueError(f"max_length = {max_length}: the tokenizer in {folder} allows {tokenizer.model_max_length}")
    return tokenizer


def _token_types(folder: Path) -> int:
    """Return the number of the model's token types. RoBERTa has one, so the second text of a pair must have type 0, too."""
    path = folder / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("type_vocab_size", 2) if path.is_file() else 2


def _check_ids(folder: Path, splits: dict[str, Split]) -> None:
    """Raise ValueError if a text has a token id for which the model next to the tokenizer has no embedding."""
    path = folder / "config.json"
    words = json.loads(path.read_text(encoding="utf-8")).get("vocab_size") if path.is_file() else None
    largest = max(int(split.ids.max()) for split in splits.values())
    if words is not None and largest >= words:
        raise ValueError(
            f"{folder}: its tokenizer makes token id {largest} of these texts, and the model has embeddings for {words} tokens"
        )


def _tokenise(texts: Texts, tokenizer: PreTrainedTokenizerBase, max_length: int, token_types: int, form: Form) -> Split:
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[int] = []
    between = _separator(tokenizer)
    for start in range(0, len(texts), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        encoded = tokenizer(
            texts.first[some],
            None if texts.second is None else [between + text for text in texts.second[some]],
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        for example, kinds in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
            if not example:  # an empty text, of which a decoder's tokenizer makes nothing
                example.append(_token_of_nothing(tokenizer))
                kinds.append(0)
        ids.append(np.concatenate(encoded["input_ids"]))
        types.append(np.concatenate(encoded["token_type_ids"]))
        lengths += [len(example) for example in encoded["input_ids"]]
    return Split(
        ids=np.concatenate(ids).astype(np.int32),
        token_types=np.minimum(np.concatenate(types), token_types - 1).astype(np.int8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=form.encode(texts.labels),
    )


def _separator(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what is put before the second text of a pair: a line break if the tokenizer would put nothing between the two."""
    alone, pair = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    return "" if pair > alone else "\n"


def _token_of_nothing(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that stands for an empty text."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id):
        if token is not None:
            return int(token)
    return 0


def _cut_count(texts: Texts, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> CutCount:
    """Return how many of the texts were cut in `split`. Only those that fill `max_length` are tokenised again."""
    lengths = np.diff(split.offsets)
    full = np.flatnonzero(lengths >= max_length)
    if len(full):
        chosen = texts.take(tuple(full.tolist()))
        # The tokenizer warns of examples that are longer than its model allows; these are only counted.
        between = _separator(tokenizer)
        second = None if chosen.second is None else [between + text for text in chosen.second]
        encoded = tokenizer(chosen.first, second, return_attention_mask=False, verbose=False)["input_ids"]
        lengths[full] = [len(example) for example in encoded]
    return CutCount.of(lengths.tolist(), max_length)


def _write(path: Path, loaded: Loaded, splits: dict[str, Split], cut: dict[str, CutCount]) -> None:
    from safetensors.numpy import save_file

    arrays = {f"{part}.{name}": getattr(splits[part], name) for part in PARTS for name in ARRAYS}
    header = {
        "task": json.dumps(loaded.task.to_record()),
        "fingerprint": loaded.fingerprint,
        "cut": json.dumps({part: asdict(count) for part, count in cut.items()}),
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(arrays, temporary, {**header, "digest": _digest(arrays, header)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(arrays: dict[str, np.ndarray], header: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps([header["task"], header["fingerprint"], header["cut"]]).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Context that one process at a time can enter. The operating system releases the lock when its process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
