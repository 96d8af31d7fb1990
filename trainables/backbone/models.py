"""Finds a pretrained model by its name, and reads its shape and the fingerprint of its files. Never imports torch.

A name is a local directory, a Hub id, with or without a revision (owner/name@revision), or the name of a model that comes with
packages (`packaged_models.py`); if these are not installed, and the Hub has the same encoder, it is that of the Hub. A
directory counts before a Hub id of the same name, even if its name has an "@".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.checks import naming
from trainables.backbone import hub, packaged_models, weight_files
from trainables.backbone.families import FAMILIES
from trainables.backbone.packaged_models import PACKAGED_MODELS
from trainables.backbone.token_ids import largest_id
from trainables.methods.spec import Shape

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
    **{name: model.title for name, model in PACKAGED_MODELS.items()},
}
# Models that a space can name without "owner/" and without a directory.
NAMES = (*KNOWN_CONFIGS, *PACKAGED_MODELS)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model whose files are on this machine.

    path: their folder. family: its `model_type`. fingerprint: hash of its weights, config and tokenizer files. commit: of the
    Hub's repository, "" for a folder of the user or the wheel.
    """

    name: str
    path: Path
    shape: Shape
    family: str
    fingerprint: str
    commit: str = ""


def title(name: str) -> str:
    """Returns the model's name in tables; of a Hub id with its revision, whose commit is shortened to 7 digits."""
    if "@" not in name or name.startswith((".", "/", "~")) or Path(name).is_dir():
        return TITLES.get(name, Path(name).name)
    found = hub.parse(name)
    revision = str(found.revision)
    short = revision[:7] if len(revision) == 40 else revision
    return f"{title(found.repository)}@{short}"


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Returns the backbone's shape from the content of its config.json. Raises ValueError if no family supports it."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(_no_family(family))
    return FAMILIES[family].shape(config)


def _no_family(family: object) -> str:
    return (
        f"model family {family!r} is not supported; supported: {', '.join(FAMILIES)}. A row "
        'peft_row({"peft_type": "LORA", ...}) trains any classifier of transformers with peft, each trial alone'
    )


def peek(name: str) -> Shape | None:
    """Returns the shape without downloading anything, None if that needs the Hub. Raises ValueError for unsupported models."""
    folder = local(name)
    if folder:
        return shape_of(_config(name, folder))
    config = PACKAGED_MODELS[name].config if name in PACKAGED_MODELS else KNOWN_CONFIGS.get(name)
    return shape_of(config) if config else None


def check(name: str, max_length: int) -> Shape | None:
    """Returns the shape as `peek` does, after a check of all that can be checked without downloading or loading anything.

    Raises ValueError if the model cannot be used: unsupported, files missing or damaged or not belonging together, token ids
    beyond its vocabulary, or fewer positions than `max_length` tokens.
    """
    folder = local(name)
    shape = _check_folder(name, folder) if folder else peek(name)
    if shape:
        check_length(name, shape, max_length)
    return shape


def check_length(name: str, shape: Shape, max_length: int) -> None:
    """Raise ValueError if the model has fewer positions than `max_length` tokens."""
    if max_length > shape.positions:
        raise ValueError(
            f"max_length = {max_length}: model {name!r} has positions for {shape.positions} tokens; set "
            f"Recipe(max_length={shape.positions}) or less"
        )


def resolve(name: str) -> Model:
    """Find or download the model. Raises MissingModel if it is not available, ValueError if it cannot be used (`check`)."""
    folder = local(name) or (packaged_models.written(name) if name in PACKAGED_MODELS else None) or _downloaded(name)
    shape = _check_folder(name, folder)
    return Model(
        name=name,
        path=folder,
        shape=shape,
        family=_config(name, folder)["model_type"],
        fingerprint=fingerprint(folder),
        commit=hub.commit(folder),
    )


def fingerprint(folder: Path) -> str:
    """Returns a hash of the weights, config and tokenizer files in the folder: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    texts = {path for pattern in hub.TEXT_FILES for path in folder.glob(pattern)}
    for path in sorted({*texts, *weight_files.weight_paths(folder)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def local(name: str) -> Path | None:
    """Returns the folder of the model's files, None if they are not on this machine. Raises ValueError for impossible names."""
    if name in PACKAGED_MODELS:
        if (Path(name) / "config.json").is_file():
            raise ValueError(
                f"model {name!r} is the name of a model that comes with a package, and of a directory here; write ./{name} "
                "for the directory, or rename it"
            )
        return packaged_models.local(name) or _in_hub_cache(name)
    if Path(name).is_dir():
        return Path(name).resolve()
    if Path(name).is_file():
        weight_files.refuse_gguf(Path(name))
        raise ValueError(f"model {name!r} is a file; give the folder of a saved model")
    if name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") > 1:
        raise ValueError(f"model {name!r}: there is no such directory; give the folder of a saved model, or owner/name")
    found = hub.parse(name)
    if found.repository in PACKAGED_MODELS:
        twin = PACKAGED_MODELS[found.repository].hub_id
        raise ValueError(
            f"model {name!r}: {found.repository} comes with an installed package, which has no revisions; write "
            f"{f'{twin}@{found.revision}' if twin else found.repository}"
        )
    return hub.cached(name, found)


def _in_hub_cache(name: str) -> Path | None:
    """Returns the folder, in the Hub's cache, of the encoder that is the same as this one of a package."""
    twin = PACKAGED_MODELS[name].hub_id
    return hub.cached(name, hub.parse(twin)) if twin else None


def _downloaded(name: str) -> Path:
    """Returns the folder of the files after their download. Raises MissingModel if that is impossible."""
    packaged = PACKAGED_MODELS.get(name)
    if packaged is None:
        return hub.download(name, hub.parse(name), "give a local directory")
    if packaged.hub_id is None:
        raise hub.MissingModel(f"model {name!r}: its package is not installed; {packaged.install}")
    return hub.download(name, hub.parse(packaged.hub_id), packaged.install)


def _check_folder(name: str, folder: Path) -> Shape:
    """Returns the shape of the model in this folder. Raises ValueError as `check` does."""
    config = _config(name, folder)
    shape = shape_of(config)
    with naming("model", name):
        _check_weights(folder, config, shape)
        largest, words = largest_id(folder), config[FAMILIES[config["model_type"]].keys.vocabulary]
        if largest >= words:
            raise ValueError(
                f"{folder}: its tokenizer makes token ids up to {largest}, and the model has embeddings for {words} tokens; "
                "give the model's own tokenizer, or, if tokens were added, call "
                "model.resize_token_embeddings(len(tokenizer)) and save both"
            )
    return shape


def _config(name: str, folder: Path) -> dict[str, Any]:
    """Returns the content of config.json. Raises ValueError if it is missing, invalid or describes an unsupported model."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
        shape_of(config)
    except FileNotFoundError:
        weight_files.refuse_gguf(folder)
        raise ValueError(f"model {name!r}: {folder} has no config.json; give the folder of a saved model") from None
    except ValueError as error:  # invalid JSON and invalid encodings, too
        raise ValueError(f"model {name!r}: {path}: {error}") from None
    return config


def _check_weights(folder: Path, config: Mapping[str, Any], shape: Shape) -> None:
    """Raise ValueError if files of weights are missing, or lack a tensor that the config describes, or have one of another shape.

    Without this check, transformers would initialise such tensors at random.
    """
    shapes, prefix = weight_files.tensor_shapes(folder), FAMILIES[config["model_type"]].prefix
    # Vectors are not compared: in old files those of LayerNorms have other names. A pooler may be missing.
    for tensor in (t for t in shape.tensors if t.is_matrix and t.part != "pooler"):
        wanted, found = list(tensor.shape), shapes.get(tensor.name, shapes.get(f"{prefix}.{tensor.name}"))
        if found != wanted:
            raise ValueError(
                f"{weight_files.weight_paths(folder)[0]} does not belong to its config.json: {tensor.name} should be {wanted} "
                f"and is {found}"
            )
