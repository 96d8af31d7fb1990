"""The safetensors files of a model's weights: `model.safetensors`, or several shards and an index that names them.

Checks read only headers; `Backbone.load` loads the tensors, from shards as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def weight_paths(folder: Path) -> list[Path]:
    """Return the files that decide the weights: `model.safetensors` if there is one, as transformers does; else index and shards.

    Raises ValueError if there is neither, or if the index cannot be read.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return [folder / INDEX, *(folder / name for name in shard_names(folder))]
    pickle = next((name for name in PICKLES if (folder / name).is_file()), None)
    if pickle:
        raise ValueError(
            f"{folder} has no {WEIGHTS}, only {pickle}: a pickle, which can run code when it is loaded and is refused; if you "
            "trust it, load it with transformers and save it with model.save_pretrained(folder)"
        )
    refuse_gguf(folder)
    raise ValueError(
        f"{folder} has no {WEIGHTS}, its file of weights; save the model with model.save_pretrained(folder)"
    )


def refuse_gguf(path: Path) -> None:
    """Raise ValueError if `path` is a GGUF file, or a folder with one, that says how to make a model of it."""
    found = path if path.suffix == ".gguf" else next(iter(sorted(path.glob("*.gguf"))), None)
    if found:
        raise ValueError(
            f"{found}: a GGUF file, whose weights are quantised, is no model to train; transformers loads it "
            f"by from_pretrained(folder, gguf_file={found.name!r}): put its state_dict into a new model of the class, and save "
            "that and the tokenizer with save_pretrained(folder) (docs/running.md has the lines)"
        )


def complete(folder: Path) -> bool:
    """Return whether a folder of the Hub's cache has the weights, or an index that is damaged and that checks will refuse."""
    try:
        return all(path.is_file() for path in weight_paths(folder))
    except ValueError:
        return (folder / INDEX).is_file()


def shard_names(folder: Path) -> list[str]:
    """Return the names of the shards that the index lists. Raises ValueError if it is damaged or names files elsewhere."""
    return sorted(set(_index(folder).values()))


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor by its name. Raises ValueError if a file of the weights is missing or damaged."""
    paths = weight_paths(folder)
    if paths[0].name == WEIGHTS:
        return _header(paths[0])
    shards = paths[1:]
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(shards)} files of weights that {INDEX} lists: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; copy or download them again"
        )
    headers = {path.name: _header(path) for path in shards}
    for tensor, name in _index(folder).items():
        if tensor not in headers[name]:
            raise ValueError(f"{folder / name} has no tensor {tensor}, which {INDEX} says it has; copy both again")
    return {tensor: shape for header in headers.values() for tensor, shape in header.items()}


def read(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Return those of the tensors with these names that the files have."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for path in (path for path in weight_paths(folder) if path.name != INDEX):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def _index(folder: Path) -> Mapping[str, str]:
    """Return the name of the shard of each tensor. Raises ValueError if the index is damaged or names files elsewhere."""
    path = folder / INDEX
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not found or not all(isinstance(name, str) for name in found.values()):
            raise ValueError("its weight_map names no files")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: no index of weights can be read from it ({type(error).__name__}: {error})") from None
    wrong = next((n for n in found.values() if not n.endswith(".safetensors") or Path(n).name != n or "\\" in n), None)
    if wrong is not None:
        raise ValueError(f"{path}: names {wrong!r}, which is no safetensors file in this folder")
    weight_map: Mapping[str, str] = found
    return weight_map


def _header(path: Path) -> dict[str, list[int]]:
    """Return shapes by tensor name from the header of a safetensors file, which is its length in 8 bytes and then JSON.

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
        raise ValueError(f"{path} is cut off or no safetensors file; copy or download it again")
    return shapes
