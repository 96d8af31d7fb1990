"""Makes the manifest of a sweep, which is written next to its ledger and to MLflow and suffices to interpret and repeat it.

A sweep is named by its space and a hash of the resolved space, so that the same command finds the same folder.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.planning.plan import Plan
from search_spaces.language import TRAINING, Budget, Choice, Dimension, FileTask, MethodEntry, Range, Space
from search_spaces.peft_rows import PEFT, TYPE, default_label
from search_spaces.plugins import identity
from search_spaces.quantization import PACKAGE, recipe_json
from search_spaces.records import METHOD_SEMANTICS, TRAINING_SEMANTICS
from search_spaces.redaction import redact
from trainables.backbone import models
from trainables.backbone.models import Model
from trainables.methods.lookup import make_method, method_type
from trainables.methods.peft_row import installed_peft
from trainables.tasks import TASKS
from trainables.tasks.forms.regression import REGRESSION, Regression
from trainables.tasks.task_data import Loaded

PACKAGES = ("torch", "transformers", "ray", "optuna", "mlflow", "datasets", "numpy", "scikit-learn", "scipy", "pandas")
# Fields that were added to records of a space after the first release.
ADDED_FIELDS = {"search_seeds", "searches", "search", "brackets"} | {
    *("positive", "missing", "encoding", "header", "validation", "group", "time", "separator"),
}


def folder_name(space: Space) -> str:
    """Return the name of a sweep's folder, `<space>-<8 hex digits>`. It changes with everything in the space except titles.

    The order of methods and values counts too, because it decides which configuration is tried first.
    """
    text = json.dumps({**space_json(space), **_semantics(space)})
    return f"{space.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def new_sweep_id(space: Space) -> str:
    """Return the id of a sweep that begins now: the name of its folder and 8 random hex digits."""
    return f"{folder_name(space)}-{secrets.token_hex(4)}"


def _semantics(space: Space) -> dict[str, Any]:
    """Return the version of the training code, and what has changed for regressions and for single methods, if the space has any.

    The latter two are left out otherwise, so that sweeps without them keep their names.
    """
    known = {name: task.form == REGRESSION for name, task in TASKS.items()}
    regression = any(known.get(task, False) if isinstance(task, str) else task.regression for task in space.tasks)
    found: dict[str, Any] = {"semantics": TRAINING_SEMANTICS[space.recipe.precision]}
    if regression:
        found["regression"] = REGRESSION.fingerprint_key
    methods = {e.name: METHOD_SEMANTICS[e.name] for e in space.methods if e.name in METHOD_SEMANTICS}
    return {**found, "method_semantics": dict(sorted(methods.items()))} if methods else found


def space_file(space: Space) -> Path | None:
    """Return the path of the file that the space was read from; None if it is not there any more."""
    paths = (space.folder / f"{space.name}{suffix}" for suffix in (".py", ".yaml", ".yml"))
    return next((path for path in paths if path.is_file()), None)


def space_json(space: Space) -> dict[str, Any]:
    """Return the resolved space as JSON, from whose text the name of the sweep's folder is derived."""
    return {
        "name": space.name,
        "models": list(space.models),
        "tasks": [_record(task) if isinstance(task, FileTask) else task for task in space.tasks],
        "methods": [
            {"name": e.name, "label": e.label, "values": {k: _value(v) for k, v in space.values_of(e).items()}}
            # Left out if False, so that the names of sweeps from before this field existed stay the same.
            | ({"ablated": True} if e.ablated else {})
            for e in space.methods
        ],
        "recipe": recipe_json(space.recipe),
        "budget": _record(space.budget),
        "seed": space.seed,
    }


def _record(record: FileTask | Budget) -> dict[str, Any]:
    """Return the fields by name, without those in ADDED_FIELDS that have their default.

    So the names of sweeps from before these fields existed stay the same.
    """
    values = {field.name: (getattr(record, field.name), field.default) for field in fields(record)}
    return {name: value for name, (value, default) in values.items() if name not in ADDED_FIELDS or value != default}


def make_manifest(
    plan: Plan,
    found: Mapping[str, Model],
    loaded: Mapping[str, Loaded],
    command: str,
    device: str,
    *,
    sweep: str,
    experiment: str = "",
) -> dict[str, Any]:
    """Return the manifest of a sweep: its space, settings, fingerprints of models and data, versions, commit and device.

    `command` is the command line that started it, `sweep` its id (`new_sweep_id`), `experiment` the name of its MLflow
    experiment; "" for the name of the space.
    """
    space = plan.space
    commit, dirty = _commit()
    plugins = _plugins(space, found)
    return {
        "sweep": sweep,
        "folder": folder_name(space),
        "space": space.name,
        "space_file": file.name if (file := space_file(space)) else "",
        "experiment": experiment or space.name,
        "title": space.title or space.name,
        "paper": space.paper,
        "seed": space.seed,
        "stamp": list(plan.reductions),
        "command": redact(command),
        "models": {
            name: {
                "title": models.title(name),
                "weights": m.fingerprint,
                "total": m.total,
                "source": name,
                "commit": m.commit,
            }
            for name, m in found.items()
        },
        "tasks": {name: _task(task) for name, task in loaded.items()},
        "methods": {e.label: _method(space, e, title) for e, title in zip(space.methods, titles(space), strict=True)},
        "recipe": recipe_json(space.recipe),
        "budget": asdict(space.budget),
        "resolved": space_json(space),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in (*PACKAGES, *((PACKAGE,) if space.recipe.nf4 else ()))},
            **plugins,
        },
        # Left out without any, as in the manifests of earlier versions.
        **({"plugins": plugins} if plugins else {}),
        "commit": commit,
        "dirty": dirty,
        "device": device,
    }


def _plugins(space: Space, found: Mapping[str, Model]) -> dict[str, str]:
    """Return the packages whose space, methods, tasks or model families the sweep uses, with version and hash of their code."""
    own = {PEFT: str(installed_peft())} if any(entry.name == PEFT for entry in space.methods) else {}
    return own | identity(
        ("spaces", space.name),
        *(("methods", entry.name) for entry in space.methods),
        *(("tasks", task) for task in space.tasks if isinstance(task, str)),
        *(("families", model.family) for model in found.values()),
    )


def add_notes(manifest: dict[str, Any], notes: Mapping[str, Sequence[str]]) -> None:
    """Add sentences about the data, by task, to those that the manifest has."""
    for name, told in notes.items():
        manifest["tasks"][name]["notes"] += told


def fingerprints(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the fingerprints of models, tasks and plug-ins of a manifest. They must not change when a sweep is continued."""
    weights = {f"model {name}": m["weights"] for name, m in manifest["models"].items()}
    splits = {f"task {name}": t["split"] for name, t in manifest["tasks"].items()}
    more = {
        f"task {name}, search {number}": split
        for name, t in manifest["tasks"].items()
        for number, split in enumerate(t.get("more_splits", ()), start=2)
    }
    plugins = {f"package {name}": version for name, version in manifest.get("plugins", {}).items()}
    return weights | splits | more | plugins


def _task(loaded: Loaded) -> dict[str, Any]:
    task = loaded.task
    return {
        "title": task.title,
        "score": task.metrics[0],
        "metrics": list(task.metrics),
        "split": loaded.fingerprint,
        "train": len(loaded.train),
        "validation": len(loaded.validation),
        "test": len(loaded.test),
        "majority": loaded.majority,
        "test_source": task.test_source,
        "notes": list(loaded.notes),
        "classes": list(task.classes),
        "positive": task.positive,
        # Splits of the searches after the first; left out with a single search, as in the manifests of earlier versions.
        **({"more_splits": [each.fingerprint for each in loaded.repeats]} if loaded.repeats else {}),
        **({"targets": asdict(task.form)} if isinstance(task.form, Regression) else {}),
    }


def titles(space: Space) -> list[str]:
    """Return the title of each row for tables: the method's title and the fixed settings in which rows of the method differ.

    If these do not distinguish a row from the others, its label follows the method's title in parentheses.
    """
    kinds = {e.name: [space.values_of(other) for other in space.methods if other.name == e.name] for e in space.methods}
    found = []
    for entry in space.methods:
        values, alike = space.values_of(entry), kinds[entry.name]
        apart = [key for key in values if any(other.get(key, values[key]) != values[key] for other in alike)]
        told = [f"{key} = {values[key]}" for key in apart if not isinstance(values[key], Choice | Range)]
        if entry.name == PEFT:  # whose fields are long, and mean something else in another type
            told = []
        found.append(", ".join([_title(entry), *told]))
    return [
        title if (title != _title(e) or e.label == e.name) and found.count(title) == 1 else _labelled(e)
        for e, title in zip(space.methods, found, strict=True)
    ]


def _title(entry: MethodEntry) -> str:
    """Return the title of the row's method; of a row of peft, its type and that peft trains it alone."""
    if entry.name != PEFT:
        return method_type(entry.name).title
    return f"{entry.settings[TYPE]}, trained alone by peft {installed_peft()}"


def _labelled(entry: MethodEntry) -> str:
    title = _title(entry)
    default = default_label(str(entry.settings[TYPE])) if entry.name == PEFT else entry.name
    return title if entry.label == default else f"{title} ({entry.label})"


def _method(space: Space, entry: MethodEntry, title: str) -> dict[str, Any]:
    kind = method_type(entry.name)
    values = space.values_of(entry)
    fixed = {k: v for k, v in entry.fixed.items() if k not in TRAINING}
    return {
        "name": entry.name,
        "title": title,
        "kind": _title(entry) if entry.name == PEFT else kind.title,
        "family": kind.family,
        "paper": kind.paper,
        "fixed": {k: v for k, v in values.items() if not isinstance(v, Choice | Range)},
        "searched": {k: _value(v) for k, v in values.items() if isinstance(v, Choice | Range)},
        "settings": {k: v for k, v in make_method(entry.name, fixed).settings().items() if k not in entry.searched},
        **({"ablated": True, "removable": bool(kind.removed_at_zero)} if entry.ablated else {}),
    }


def _value(value: Any | Dimension) -> Any:
    if isinstance(value, Choice):
        return {"choice": list(value.values)}
    if isinstance(value, Range):
        return {"range": [value.low, value.high], "log": value.log}
    return value


def _commit() -> tuple[str, bool]:
    """Return the git commit of this code, "" outside a checkout, and whether tracked files differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
