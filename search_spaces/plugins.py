"""Methods, tasks, spaces and model families of other packages, found by their entry points.

An installed package offers them in its own pyproject.toml; docs/plugins.md shows a whole one:

    [project.entry-points."peft_sweep.methods"]
    my_method = "my_package.my_method:MyMethod"

The tables of this project (`METHODS`, `TASKS`, `FAMILIES`) take in what `with_plugins` returns. What cannot be loaded is left
out of them and told by `check_plugins`, so that a broken package does not break imports.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

OfferKind = Literal["methods", "tasks", "spaces", "families"]
SINGULAR: Mapping[OfferKind, str] = {
    "methods": "method",
    "tasks": "task",
    "spaces": "space",
    "families": "model family",
}
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One entry point: what a package offers under a name. `place`: "module:attribute", for a space the name of a module."""

    kind: OfferKind
    name: str
    place: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"package {self.package!r} {self.version} offers the {SINGULAR[self.kind]} {self.name!r}"

    @property
    def root(self) -> str:
        """The name of the top-level module that holds it."""
        return self.place.partition(":")[0].partition(".")[0]


# Errors of packages, by what they offer, as far as it was asked for.
_problems: dict[Offer, str] = {}


@cache
def offers(kind: OfferKind) -> tuple[Offer, ...]:
    """Return what the installed packages offer, sorted by name. A package that is found twice on the path counts once."""
    found = {
        Offer(kind=kind, name=point.name, place=point.value, package=point.dist.name, version=point.dist.version)
        for point in _entry_points().select(group=f"peft_sweep.{kind}")
        if point.dist is not None
    }
    return tuple(sorted(found, key=lambda offer: (offer.name, offer.package)))


@cache
def _entry_points() -> Any:
    """Return the entry points of all installed packages, whose type depends on the version of Python. Reading takes 50 ms."""
    return metadata.entry_points()


def with_plugins(kind: OfferKind, known: dict[str, Value], check: Callable[[str, Any], Value]) -> dict[str, Value]:
    """Return the table `known` with what packages offer. `check(name, object)` returns the entry, or raises ValueError or
    TypeError for an object that is none."""
    table = dict(known)
    for offer in offers(kind):
        if offer.name in table:
            _problems[offer] = f"there is another of that name{_owner(kind, offer)}"
            continue
        try:
            table[offer.name] = check(offer.name, load_offer(offer))
        # Another package's code may raise any exception.
        except (Exception, SystemExit) as error:
            _problems[offer] = f"{offer.place} is not usable ({type(error).__name__}: {error})"
    return table


def load_offer(offer: Offer) -> Any:
    """Import and return the object. Raises whatever the package's code raises."""
    return metadata.EntryPoint(offer.name, offer.place, f"peft_sweep.{offer.kind}").load()


def find(kind: OfferKind, name: str) -> Offer | None:
    """Return which package offers this name, None if the name is this project's own or unknown."""
    return next((offer for offer in offers(kind) if offer.name == name and offer not in _problems), None)


def space_files(known: Iterable[str]) -> dict[str, Path]:
    """Return the files of the spaces that packages offer, by name. `known`: names of this project's own spaces."""

    def file(name: str, module: str) -> Path:
        spec = find_spec(module)
        if spec is None or not (spec.origin or "").endswith(".py"):
            raise ValueError("there is no such Python file")
        path = Path(str(spec.origin))
        ast.parse(path.read_text(encoding="utf-8"))
        return path

    found: dict[str, Path] = {}
    for offer in offers("spaces"):
        if offer.name in found or offer.name in set(known):
            _problems[offer] = f"there is another of that name{_owner('spaces', offer)}"
            continue
        try:
            found[offer.name] = file(offer.name, offer.place)
        except (Exception, SystemExit) as error:
            _problems[offer] = f"{offer.place} is not usable ({type(error).__name__}: {error})"
    return found


def check_plugins() -> None:
    """Raise ValueError if a package offers something that was asked for and cannot be used, naming the package."""
    for offer, problem in _problems.items():
        raise ValueError(f"{offer}, but {problem}; update the package, or uninstall it: pip uninstall {offer.package}")


def identity(*names: tuple[OfferKind, str]) -> dict[str, str]:
    """Return the packages that offer any of these (kind, name), each with its version and a hash of its Python files."""
    found = [find(kind, name) for kind, name in names]
    return {offer.package: f"{offer.version}+{_code_hash(offer.root)}" for offer in found if offer is not None}


def all_identities() -> dict[str, str]:
    """Return all packages whose methods, tasks or model families a worker may run, with version and hash."""
    kinds: tuple[OfferKind, ...] = ("methods", "tasks", "families")
    return identity(*((kind, offer.name) for kind in kinds for offer in offers(kind)))


def _owner(kind: OfferKind, offer: Offer) -> str:
    others = [other.package for other in offers(kind) if other.name == offer.name and other.package != offer.package]
    return f", from the package {others[0]!r}" if others else " in peft-sweep itself"


@cache
def _code_hash(root: str) -> str:
    """Return a hash of the names and contents of the Python files of a top-level module: 12 hexadecimal digits."""
    spec, digest = find_spec(root), hashlib.sha256()
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    files = [(path, path.relative_to(folder)) for folder in folders for path in sorted(folder.rglob("*.py"))]
    if spec and not folders and spec.origin:
        files = [(Path(spec.origin), Path(Path(spec.origin).name))]
    for path, name in files:
        digest.update(f"{name.as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]
