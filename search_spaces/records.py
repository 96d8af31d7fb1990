"""Records that the packages exchange: a trial, its progress after each epoch, and its outcome.

`to_json` gives plain JSON values from which `from_json` makes an equal record. The ledger stores these values, and the
processes of a sweep exchange them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, Literal

from search_spaces.language import Cell, Precision, Recipe, Scalar
from search_spaces.quantization import recipe_json

# Version of the training code by precision. Increase it when a change of the code alters the results of trials in that
# precision: results of trials with an older version are then not reused.
TRAINING_SEMANTICS: Mapping[Precision, int] = {"fp32": 3, "bf16": 4, "nf4": 1}
# Added to it for methods whose trials alone had to change; `docs/decisions.md` says why. Increase an entry, never lower it.
METHOD_SEMANTICS: Mapping[str, int] = {
    "adalora": 1,
    "child_tuning_d": 1,
    "diff_pruning": 1,
    "lt_sft": 1,
    "rslora": 1,
}

Phase = Literal["search", "final"]
State = Literal["PLANNED", "CACHED", "RUNNING", "STOPPED", "DONE", "FAILED", "INVALID"]
# CACHED is not an end state: it says that the result was taken from another sweep, and is recorded in addition to one of these.
END_STATES = ("DONE", "STOPPED", "FAILED", "INVALID")
# Search number j of a cell uses the seed of the space plus j times this: more than one search has seeds (`Budget` allows 200).
SEEDS_PER_SEARCH = 1000
# A cell and the number of one of its searches, from 0.
SearchKey = tuple[Cell, int]
# `Outcome.reason` of trials that were STOPPED because the time budget was used up.
BUDGET = "budget"


def training_semantics(method: str, precision: Precision) -> int:
    """Return the version of the code that trains this method in this precision."""
    return TRAINING_SEMANTICS[precision] + METHOD_SEMANTICS.get(method, 0)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with one seed in one cell.

    `method` is the method's name, `cell.method` the label of its row. `settings` are the arguments of the method, fixed and
    searched ones, without lr and batch size. `split` is a fingerprint (hash) of the task's texts, labels and split, `weights` one
    of the backbone's files. `semantics` is the version of the training code, by default the current one
    (`training_semantics`). `ablated`: True for a final that is also scored with its method removed from spans of layers.
    `search`: number of the cell's search that the trial belongs to, from 0 (see `Budget.searches`). `plugin`: identities of the
    packages from which method, task and model family come, "" if they are this project's own.
    """

    cell: Cell
    method: str
    settings: Mapping[str, Scalar]
    lr: float
    batch_size: int
    seed: int
    phase: Phase
    recipe: Recipe
    weights: str
    split: str
    semantics: int = 0
    ablated: bool = False
    search: int = 0
    plugin: str = ""

    def __post_init__(self) -> None:
        if not self.semantics:
            object.__setattr__(self, "semantics", training_semantics(self.method, self.recipe.precision))

    @cached_property
    def id(self) -> str:
        """16 hex digits: hash of all fields, that is, of everything that the result depends on, and of the cell."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def search_key(self) -> SearchKey:
        return self.cell, self.search

    @property
    def hyperparameters(self) -> dict[str, Scalar]:
        return {"lr": self.lr, "batch_size": self.batch_size, "epochs": self.recipe.epochs, **self.settings}

    def to_json(self) -> dict[str, Any]:
        record = {
            field.name: getattr(self, field.name) for field in fields(self)
        }  # `asdict` copies deeply, which is slow
        record |= {
            "cell": dict(vars(self.cell)),
            "settings": dict(sorted(self.settings.items())),
            "recipe": recipe_json(self.recipe),
        }
        # Left out where they have their defaults, so that such trials keep the ids that they had before these fields existed.
        added = {"ablated": self.ablated, "search": self.search, "plugin": self.plugin}
        return {key: value for key, value in record.items() if added.get(key, True)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        return cls(**{**record, "cell": _cell(**record["cell"]), "recipe": _recipe(json.dumps(record["recipe"]))})


@lru_cache(maxsize=1024)
def _cell(**names: str) -> Cell:
    return Cell(**names)


@lru_cache(maxsize=64)
def _recipe(text: str) -> Recipe:
    """Return the recipe with this JSON, one object for all trials that have it: to check and to keep one for each is costly."""
    return Recipe(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a trial reports at the end of an epoch. Epochs count from 1.

    `score` is the score on the validation split in percent points; `best_score` and `best_epoch` are the best so far (the
    earlier epoch on ties). Epochs before the method has its final form do not count: the first of two training phases, and
    AdaLoRA's epochs above its target rank. Before the first epoch that counts, `best_epoch` is 0 and `best_score` 0.0, which is
    no score. `loss` is the mean training loss of the epoch, `seconds` the epoch's duration, `memory_mib` the peak memory so far.
    `diverged`: a loss of this epoch was not finite; `loss` is then None. `lr`: the learning rate of the epoch's last step; None
    in records from before this field existed.
    """

    epoch: int
    score: float
    loss: float | None
    best_score: float
    best_epoch: int
    seconds: float
    memory_mib: float = 0.0
    diverged: bool = False
    lr: float | None = None

    @property
    def has_best(self) -> bool:
        """Whether there is a best epoch so far, so that `best_score` is a score."""
        return self.best_epoch > 0

    def to_json(self) -> dict[str, Any]:
        record = dict(vars(self))  # the fields are plain values; `asdict`, which copies deeply, would be slow
        if self.lr is None:  # as in records from before this field existed
            del record["lr"]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Progress:
        return cls(**record)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of parameters of a method on a backbone: trained ones in the three ways that papers count, active and stored ones.

    `weights`: matrices of the method, without pruned entries. `module`: these and the method's vectors, such as biases.
    `trained`: all parameters that the optimiser changes, LayerNorms and the head included. `total`: parameters of the pretrained
    backbone; reports divide by it.

    `active`: values of the finished model that are not the pretrained ones, LayerNorms and the head included: without pruned
    entries and what only training needs. `stored_bytes`: bytes that have to be kept to use it again: four for each of these
    values, and their positions or masks (`Method.stored`). Both are None in records from before these fields existed.
    """

    weights: int
    module: int
    trained: int
    total: int
    active: int | None = None
    stored_bytes: int | None = None

    def to_json(self) -> dict[str, int]:
        """Return the numbers that are known, by name."""
        return {name: number for name, number in vars(self).items() if number is not None}


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A final's scores on the test split, computed once, with the parameters of its best validation epoch.

    `metrics` are in percent points; `predictions` and `labels` (class indices, or values in the unit of the user's targets) hold
    one entry per test example. `collapsed`: all predictions are equal; in regression, their standard deviation is below 1 % of
    that of the train targets.
    """

    metrics: Mapping[str, float]
    predictions: tuple[float, ...]
    labels: tuple[float, ...]
    collapsed: bool

    __test__ = False  # pytest: not a test class

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "metrics": dict(self.metrics),
            "predictions": list(self.predictions),
            "labels": list(self.labels),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TestResult:
        return cls(
            metrics=dict(record["metrics"]),
            predictions=tuple(record["predictions"]),
            labels=tuple(record["labels"]),
            collapsed=record["collapsed"],
        )


def predictions_checksum(predictions: Sequence[float], labels: Sequence[float]) -> int:
    """Return the CRC-32 that a file with a final's predictions holds, computed from the JSON of its values."""
    return zlib.crc32(json.dumps([list(predictions), list(labels)]).encode())


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Validation scores of a final, at its best epoch, with the method removed from spans of layers, without re-training.

    Scores are in percent points. `whole`: score of the whole model. `spans[i][k]`: score without the method in layers i to
    i + k (inclusive, counted from 0). `seconds`: duration of all these evaluations, which no epoch's `seconds` contains.
    `metric`: which scores these are; "" for the task's own score.
    """

    whole: float
    spans: tuple[tuple[float, ...], ...]
    seconds: float
    metric: str = ""

    def to_json(self) -> dict[str, Any]:
        record = {"whole": self.whole, "spans": [list(scores) for scores in self.spans], "seconds": self.seconds}
        # Left out for the task's own score, so that such records are those from before this field existed.
        return {**record, "metric": self.metric} if self.metric else record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Ablation:
        spans = tuple(tuple(float(score) for score in scores) for scores in record["spans"])
        metric = str(record.get("metric", ""))
        return cls(whole=float(record["whole"]), spans=spans, seconds=float(record["seconds"]), metric=metric)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended.

    `reason`: "asha" or "budget" (STOPPED), "epochs" or "patience" (DONE), "diverged" (FAILED, or DONE if it is a final), or a
    message (FAILED, INVALID).

    `epochs`: number of trained epochs. A DONE or STOPPED trial has its best epoch and validation score, unless it was stopped
    before the first epoch that counts: `best_epoch` is then 0 (see `Progress`). A final that is DONE has `metrics` (test split,
    percent points), and `predictions` names the file with its predictions. `diverged`: the training loss was not finite.
    `ablation`: None except for a final of an ablated row whose method can be removed.
    """

    state: State
    reason: str
    epochs: int
    best_epoch: int = 0
    best_score: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    predictions: str = ""
    collapsed: bool = False
    diverged: bool = False
    counts: Counts | None = None
    ablation: Ablation | None = None

    def to_json(self) -> dict[str, Any]:
        counts = self.counts.to_json() if self.counts else None
        ablation = self.ablation.to_json() if self.ablation else None
        return {**asdict(self), "metrics": dict(self.metrics), "counts": counts, "ablation": ablation}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Outcome:
        counts, ablation = record.get("counts"), record.get("ablation")
        found = {
            "counts": Counts(**counts) if counts else None,
            "ablation": Ablation.from_json(ablation) if ablation else None,
        }
        return cls(**{**record, **found})
