"""Estimates the seconds of an epoch from the ledgers of the sweeps in the same output folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.ledger import read_history
from search_spaces.history import SweepHistory
from search_spaces.language import Cell, Recipe
from trainables.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that the duration of an epoch depends on.

    device: its name in the manifest, "GPU" for any number of GPUs. per_device: trials that share one device.
    """

    model: str
    task: str
    method: str
    precision: str
    max_length: int
    train_examples: int
    device: str
    per_device: int

    @property
    def kind(self) -> tuple[object, ...]:
        """The part of the setting on which tokens per second depend, assuming that tasks and methods are equally fast.

        Methods that train a copy of the backbone of their own are kept apart from those that share it.
        """
        shared = METHODS[self.method].shares_backbone
        return self.model, shared, self.precision, self.max_length, self.device, self.per_device


@dataclass
class Throughput:
    """The number of timed epochs and the sum of their seconds."""

    epochs: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Mean seconds per epoch."""
        return self.seconds / self.epochs


def setting_of(cell: Cell, method: str, recipe: Recipe, device: str, per_device: int) -> Setting:
    """Return the setting of a cell. `device` is that of the manifest; the number of GPUs is dropped, since a trial uses one."""
    return Setting(
        model=cell.model,
        task=cell.task,
        method=method,
        precision=recipe.precision,
        max_length=recipe.max_length,
        train_examples=recipe.limit("train_examples", cell.task),
        device="GPU" if "GPU" in device else device,
        per_device=per_device,
    )


def measured(out: Path) -> dict[Setting, Throughput]:
    """Return the throughput of every setting that the sweeps in `out` have trained. Raises Damaged for a damaged ledger."""
    found: dict[Setting, Throughput] = {}
    for path in sorted(out.glob("*/ledger.jsonl")):
        _measure(read_history(path.parent), found)
    return found


def _measure(history: SweepHistory, found: dict[Setting, Throughput]) -> None:
    for epoch in history.timed_epochs:
        trial = epoch.trial
        setting = setting_of(trial.cell, trial.method, trial.recipe, epoch.device, epoch.per_device)
        known = found.setdefault(setting, Throughput())
        known.epochs, known.seconds = known.epochs + 1, known.seconds + epoch.seconds


def expected(
    wanted: Setting, found: Mapping[Setting, Throughput], tokens: Callable[[Setting], float | None]
) -> tuple[float, bool] | None:
    """Return (seconds of an epoch, whether exactly this setting was timed); None if no estimate is possible.

    If the setting itself was not timed, the estimate is its tokens divided by the tokens per second of settings of the same
    `kind`. `tokens` returns the tokens of an epoch of a setting, None if unknown.
    """
    if wanted in found:
        return found[wanted].mean, True
    number = tokens(wanted)
    alike = {setting: timed for setting, timed in found.items() if setting.kind == wanted.kind}
    known = [(tokens(setting), timed) for setting, timed in alike.items()]
    trained = sum(each * timed.epochs for each, timed in known if each is not None)
    seconds = sum(timed.seconds for each, timed in known if each is not None)
    return (seconds * number / trained, False) if number is not None and trained else None
