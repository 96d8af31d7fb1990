"""Finds the largest token id that a tokenizer's files give, without transformers, so that a plan can check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))


def largest_id(folder: Path) -> int:
    """Return the largest token id, added tokens included. Raises ValueError if there is no tokenizer or a file is damaged.

    Of several tokenizers the first of TOKENIZERS counts, as in transformers.
    """
    files = next((files for files in TOKENIZERS if all((folder / name).is_file() for name in files)), None)
    if files is None:
        raise ValueError(f"{folder} has no tokenizer: tokenizer.json, vocab.txt, or vocab.json and merges.txt")
    path = folder / files[0]
    try:
        if path.name == "tokenizer.json":
            ids = _fast(path)
        elif path.name == "vocab.txt":
            with path.open(encoding="utf-8") as file:
                ids = list(range(sum(1 for _ in file)))
        else:
            ids = list(json.loads(path.read_text(encoding="utf-8")).values())
        if path.name != "tokenizer.json" and (path := folder / "added_tokens.json").is_file():
            ids += json.loads(path.read_text(encoding="utf-8")).values()
        if (path := folder / "tokenizer_config.json").is_file():
            config: Any = json.loads(path.read_text(encoding="utf-8"))
            ids += [int(each) for each in config.get("added_tokens_decoder", {})]
        return int(max(ids))
    # The package tokenizers raises Exception itself.
    except Exception as error:
        raise ValueError(f"{path}: no tokenizer can be read from it ({str(error)[:200]})") from None


def _fast(path: Path) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values())
