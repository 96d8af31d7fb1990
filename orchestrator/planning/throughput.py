"""How fast trials were trained by sweeps in the same folder, from their ledgers; nothing is known that none of them shows."""

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
    """What decides how long an epoch takes. `device` as manifests call it, without how many GPUs; `per_device`: trials on one."""

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
        """What tokens a second depend on, as far as that is one number for several tasks and methods."""
        shared = METHODS[self.method].shares_backbone
        return self.model, shared, self.precision, self.max_length, self.device, self.per_device


@dataclass
class Throughput:
    """Epochs that were timed, and their seconds together."""

    epochs: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds of an epoch."""
        return self.seconds / self.epochs


def setting_of(cell: Cell, method: str, recipe: Recipe, device: str, per_device: int) -> Setting:
    """`device` as manifests call it: one GPU trains a trial as fast as eight do."""
    return Setting(
        model=cell.model,
        task=cell.task,
        method=method,
        precision=recipe.precision,
        max_length=recipe.max_length,
        train_examples=recipe.train_examples,
        device="GPU" if "GPU" in device else device,
        per_device=per_device,
    )


def measured(out: Path) -> dict[Setting, Throughput]:
    """Return the throughput of all that the sweeps in this folder have trained. Raise Damaged for a ledger that is."""
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
    """Seconds of an epoch, and whether that is of this very setting; else by tokens a second of settings of its kind.

    `tokens`: of an epoch of a setting, None where unknown. None when nothing like it has been timed.
    """
    if wanted in found:
        return found[wanted].mean, True
    number = tokens(wanted)
    alike = {setting: pace for setting, pace in found.items() if setting.kind == wanted.kind}
    known = [(tokens(setting), pace) for setting, pace in alike.items()]
    trained = sum(each * pace.epochs for each, pace in known if each is not None)
    seconds = sum(pace.seconds for each, pace in known if each is not None)
    return (seconds * number / trained, False) if number is not None and trained else None
