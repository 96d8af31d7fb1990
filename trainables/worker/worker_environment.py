"""What a worker's machine must share with the driver's, and the error of a machine on which a trial cannot be trained.

Such an error is no result of the trial: the driver has it trained again, elsewhere or after the machine was mended. Loads neither
torch nor Ray.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path

from search_spaces.plugins import all_identities
from search_spaces.quantization import PACKAGE as QUANTIZES

# Packages whose version may change results.
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
# This project's packages that a worker runs. Files of spaces are left out: a worker gets trials, not a space.
CODE = ("trainables", "search_spaces")
LEFT_OUT = ("search_spaces", "spaces")
# The file in a sweep's folder that holds the sweep's id.
MANIFEST = "sweep.json"


class WorkerEnvironmentError(Exception):
    """A trial cannot be trained on this machine, for a reason that is not the trial's: disk, files, code or packages."""


@lru_cache(maxsize=2)
def environment(quantized: bool = False) -> dict[str, str]:
    """Return what results depend on beside a trial: a hash of this project's code, and versions of packages by name.

    `quantized`: whether a trial's backbone is stored in 4 bits, so that the package that does this counts too.

    Versions are without their local part ("+cu128"), which says for which device a package was built. Packages that offer
    methods, tasks or model families (`search_spaces/plugins.py`) are among them, with a hash of their code.
    """
    packages = (*PACKAGES, QUANTIZES) if quantized else PACKAGES
    versions = {name: metadata.version(name).partition("+")[0] for name in packages}
    return {"code": code_hash(code_folders()), **versions, **all_identities()}


def code_folders() -> list[Path]:
    """Return the folders of the packages that a worker runs. On a node of a cluster these may lie in different places."""
    return [Path(str(resources.files(name))) for name in CODE]


def code_hash(folders: Iterable[Path]) -> str:
    """Return a hash of the names and contents of the Python files of these packages: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent)
            if name.parts[:2] != LEFT_OUT:
                digest.update(f"{name.as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def check_environment(expected: Mapping[str, str]) -> None:
    """Raise WorkerEnvironmentError unless this process has the driver's code and package versions, which are `expected`."""
    quantized = QUANTIZES in expected
    if quantized and not find_spec(QUANTIZES):
        raise WorkerEnvironmentError(
            f"precision 'nf4' needs {QUANTIZES} {expected[QUANTIZES]}, which this worker lacks. Install it on every node"
        )
    here = environment(quantized)
    others = [
        f"{name} {here.get(name, 'none')} instead of {value}"
        for name, value in expected.items()
        if here.get(name) != value
    ]
    if others:
        raise WorkerEnvironmentError(
            f"this worker differs from the driver: {', '.join(others)}. Install the same code and packages on every node"
        )


def is_folder_of(folder: Path, sweep: str) -> bool:
    """Return whether `folder` is here the folder of this sweep, as it is for the driver."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return isinstance(found, dict) and found.get("sweep") == sweep
    except (OSError, ValueError):
        return False


def as_environment_error(error: BaseException) -> WorkerEnvironmentError | None:
    """Return the error as WorkerEnvironmentError if its kind says that the machine is its cause, else None."""
    from safetensors import SafetensorError

    from trainables.backbone.hub import MissingModel
    from trainables.tasks.tokens import DamagedTokens

    if isinstance(error, WorkerEnvironmentError):
        return error
    if isinstance(error, OSError | ImportError | SafetensorError | MissingModel | DamagedTokens):
        return WorkerEnvironmentError(f"{type(error).__name__}: {error}")
    return None
