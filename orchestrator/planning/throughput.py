"""Estimates the seconds of an epoch from the ledgers and the probe's measurements in the same output folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.ledger import Damaged, stream, write_atomic
from orchestrator.planning.token_counts import TokenCount
from search_spaces.events import DevicesShared, EpochReported, LedgerRecord, SweepOpened, TrialAsked, TrialStarted
from search_spaces.language import Cell, Recipe
from search_spaces.peft_rows import PEFT, TYPE
from search_spaces.records import Trial
from trainables.methods.lookup import method_type
from trainables.tasks.task_data import CutCount

# The file in the output folder with what `--probe` measured.
PROBED = "probed.json"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that the duration of an epoch depends on.

    method: its name; for a row of peft, this and the type, as in "peft LOHA". device: its name in the manifest, "GPU" for any
    number of GPUs. per_device: trials that share one device.
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
    def texts(self) -> tuple[str, str, int, int]:
        """The part of the setting on which the tokens of an epoch depend."""
        return self.model, self.task, self.max_length, self.train_examples

    @property
    def kind(self) -> tuple[object, ...]:
        """The part of the setting on which tokens per second depend, assuming that tasks and methods are equally fast.

        Methods that train a copy of the backbone of their own are kept apart from those that share it.
        """
        shared = method_type(self.method.partition(" ")[0]).shares_backbone
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


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What probes measured: seconds of an epoch by setting, and token counts by `Setting.texts`."""

    seconds: dict[Setting, float] = field(default_factory=dict)
    tokens: dict[tuple[str, str, int, int], TokenCount] = field(default_factory=dict)


def setting_of(
    cell: Cell, method: str, settings: Mapping[str, object], recipe: Recipe, device: str, per_device: int
) -> Setting:
    """Return the setting of a cell, whose row has this method and these settings.

    `device` is that of the manifest; the number of GPUs is dropped, since a trial uses one.
    """
    if method == PEFT:  # whose types differ in speed as methods do
        method = f"{method} {settings[TYPE]}"
    return Setting(
        model=cell.model,
        task=cell.task,
        method=method,
        precision=f"nf4, {recipe.nf4.compute}" if recipe.nf4 else recipe.precision,
        max_length=recipe.max_length,
        train_examples=recipe.limit("train_examples", cell.task),
        device="GPU" if "GPU" in device else device,
        per_device=per_device,
    )


def measured(out: Path) -> dict[Setting, Throughput]:
    """Return the throughput of every setting that the sweeps in `out` have trained. Raises Damaged for a damaged ledger."""
    found: dict[Setting, Throughput] = {}
    for path in sorted(out.glob("*/ledger.jsonl")):
        _measure(stream(path.parent), found)
    return found


def read_probed(out: Path) -> Probed:
    """Return what probes have measured for this output folder. Raises Damaged if their file cannot be read."""
    path = out / PROBED
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        tokens = {
            tuple(texts): TokenCount(**{**count, "cut": CutCount(**count["cut"])}) for texts, count in records["tokens"]
        }
        return Probed(seconds={Setting(**each): float(value) for each, value in records["epochs"]}, tokens=tokens)
    except FileNotFoundError:
        return Probed()
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{path}: cannot be read ({type(error).__name__}: {error}); delete it, and probe again") from None


def write_probed(out: Path, probed: Probed) -> None:
    """Replace what is known of these settings and texts in the output folder."""
    known = read_probed(out)
    records = {
        "epochs": [[asdict(setting), value] for setting, value in (known.seconds | probed.seconds).items()],
        "tokens": [[list(texts), asdict(count)] for texts, count in (known.tokens | probed.tokens).items()],
    }
    write_atomic(out / PROBED, json.dumps(records, indent=1))


def _measure(records: Iterable[LedgerRecord], found: dict[Setting, Throughput]) -> None:
    """Add the epochs that one sweep trained itself to what was `found` before."""
    device, per_device = "", 0
    asked: dict[str, Trial] = {}
    # By id, for the trials that the sweep started: without that, their epochs are cached ones that another sweep trained.
    started: dict[str, Setting] = {}
    for record in records:
        event = record.event
        if isinstance(event, SweepOpened):
            device = event.manifest.get("device", "")
        elif isinstance(event, DevicesShared):
            per_device = event.per_device
        elif isinstance(event, TrialAsked):
            asked[event.id] = event.trial
        elif isinstance(event, TrialStarted) and per_device:
            trial = asked[event.id]
            started[event.id] = setting_of(trial.cell, trial.method, trial.settings, trial.recipe, device, per_device)
        elif isinstance(event, EpochReported) and event.id in started:
            known = found.setdefault(started[event.id], Throughput())
            known.epochs, known.seconds = known.epochs + 1, known.seconds + event.progress.seconds


def expected(
    wanted: Setting,
    found: Mapping[Setting, Throughput],
    tokens: Callable[[Setting], float | None],
    probed: Mapping[Setting, float] | None = None,
) -> tuple[float, bool] | None:
    """Return (seconds of an epoch, whether sweeps timed exactly this setting); None if no estimate is possible.

    If no sweep timed it and no probe did, the estimate is its tokens divided by the tokens per second of settings of the same
    `kind`: of the same method, or else of all methods. `tokens` returns the tokens of an epoch of a setting, None if unknown.
    """
    if wanted in found:
        return found[wanted].mean, True
    probed = probed or {}
    if wanted in probed:
        return probed[wanted], False
    timed = {setting: Throughput(1, value) for setting, value in probed.items()} | dict(found)
    alike = {setting: each for setting, each in timed.items() if setting.kind == wanted.kind}
    own = {setting: each for setting, each in alike.items() if setting.method == wanted.method}
    number = tokens(wanted)
    speed = _seconds_per_token(own.items(), tokens) or _seconds_per_token(alike.items(), tokens)
    return (speed * number, False) if speed and number is not None else None


def _seconds_per_token(
    timed: Iterable[tuple[Setting, Throughput]], tokens: Callable[[Setting], float | None]
) -> float | None:
    """Return the mean over all timed epochs whose tokens are known, None if there are none."""
    known = [(number, each) for setting, each in timed if (number := tokens(setting)) is not None]
    trained = sum(number * each.epochs for number, each in known)
    return sum(each.seconds for _, each in known) / trained if trained else None
