"""A sweep over closed-form trials (`benchmarks/fake_worker.py`), with a real ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.ledger import Ledger
from orchestrator.search.result_cache import ResultCache
from orchestrator.search.sweep import Sweep
from search_spaces.language import TRAINING, Budget, Cell, Recipe, Space, choice, log_uniform, method
from search_spaces.records import Counts, Trial

COUNTS = Counts(weights=1, module=2, trained=3, total=100)


def make_space(trials: int, epochs: int, in_flight: int, cells: int = 1, grace: int = 2) -> Space:
    """`trials` of each cell, searched with TPE over three dimensions, and one final. `grace`: epochs before ASHA looks."""
    return Space(
        name="fake",
        models=("m",),
        tasks=tuple(f"t{i}" for i in range(cells)),
        methods=(method("adapter", r=choice(8, 16, 32), lr=log_uniform(1e-5, 1e-2)),),
        search={"lr": choice(1e-5, 1e-4), "batch_size": choice(8, 16)},
        recipe=Recipe(epochs=epochs, patience=epochs),
        budget=Budget(trials=trials, final_seeds=1, in_flight=in_flight, grace=grace),
    )


def make_sweep(space: Space, folder: Path, notify: Any = lambda records: None) -> Sweep:
    return Sweep(
        space, Ledger.open(folder), ResultCache(folder.parent, folder), make(space), lambda trial: COUNTS, notify
    )


def make_paths(space: Space, root: Path) -> TrialPaths:
    return TrialPaths(sources={"m": "m"}, data={("m", cell.task, 0): root for cell in space.cells}, checkpoints=root)


def make(space: Space) -> Any:
    """Builds trials from configurations, as the driver does, without a model or data."""

    def build(cell: Cell, hyperparameters: dict[str, Any], seed: int, phase: Any, search: int = 0) -> Trial:
        entry = space.entry(cell.method)
        values = {**space.values_of(entry), **hyperparameters}
        settings = {name: value for name, value in values.items() if name not in TRAINING}
        return Trial(
            cell=cell,
            method=entry.name,
            settings=settings,
            lr=values["lr"],
            batch_size=values["batch_size"],
            seed=seed,
            phase=phase,
            recipe=replace(space.recipe, epochs=values.get("epochs", space.recipe.epochs)),
            weights="w",
            split=f"s{search}" if search else "s",
            search=search,
        )

    return build
