"""The records that travel between the packages: a trial, its progress after each epoch, and how it ended.

All are plain values that survive a trip through JSON unchanged; the ledger, Ray and MLflow carry nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from search_spaces.language import Cell, Precision, Recipe, Scalar

# Raise it for a precision whenever the same trial would train differently in it: cached results of the old semantics are then
# not used.
TRAINING_SEMANTICS: Mapping[Precision, int] = {"fp32": 3, "bf16": 4}

Phase = Literal["search", "final"]
State = Literal["PLANNED", "CACHED", "RUNNING", "STOPPED", "DONE", "FAILED", "INVALID"]
# CACHED is how a trial was obtained, not how it ended: it is recorded beside one of these.
END_STATES = ("DONE", "STOPPED", "FAILED", "INVALID")
# The reason of trials that a time budget STOPPED.
BUDGET = "budget"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with one seed in one cell.

    `settings` is what the method is built with, fixed and searched together, without lr and batch size. `split` is
    the fingerprint of the task's texts, labels and split; `weights` the one of the backbone. `semantics`: the version of the
    training code that decides the result, by default the current one of the recipe's precision. `ablated`: a final whose method
    is removed from every span of layers once it is trained.
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

    def __post_init__(self) -> None:
        if not self.semantics:
            object.__setattr__(self, "semantics", TRAINING_SEMANTICS[self.recipe.precision])

    @property
    def id(self) -> str:
        """Hash of everything that the result depends on, and of the row of the tables that the trial belongs to."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def hyperparameters(self) -> dict[str, Scalar]:
        return {"lr": self.lr, "batch_size": self.batch_size, "epochs": self.recipe.epochs, **self.settings}

    def to_json(self) -> dict[str, Any]:
        record = {**asdict(self), "settings": dict(sorted(self.settings.items()))}
        # Trials without an ablation keep the ids that they had before there was one.
        return record if self.ablated else {key: value for key, value in record.items() if key != "ablated"}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        return cls(**{**record, "cell": Cell(**record["cell"]), "recipe": Recipe(**record["recipe"])})


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a trial reports at the end of an epoch.

    `score` is the task's score on the validation split in percent points, `best_score` and `best_epoch` the best so
    far (first best on ties; a method of two phases starts anew with the second), `loss` the mean training loss of the
    epoch, `seconds` of this epoch, `memory_mib` the peak so far. `diverged`: a loss of this epoch was not finite (`loss`
    is None then).
    """

    epoch: int
    score: float
    loss: float | None
    best_score: float
    best_epoch: int
    seconds: float
    memory_mib: float = 0.0
    diverged: bool = False

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))  # flat; one of these per report, and `asdict` copies deeply

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Progress:
        return cls(**record)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Trainable parameters of one method on one backbone, counted in the three ways that papers use.

    `weights`: matrices of the method alone, pruned entries not counted. `module`: with their biases. `trained`:
    everything the optimiser moves, LayerNorms and head included. `total`: the pretrained backbone, the denominator.
    """

    weights: int
    module: int
    trained: int
    total: int


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """A final's scores on the test split, computed once, with the parameters of its best validation epoch.

    `metrics` are in percent points; `predictions` and `labels` hold one entry per test example. `collapsed`: every
    prediction is the same.
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


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Validation scores of a final's best epoch with its method removed from spans of layers, without re-training.

    Percent points. `whole`: nothing removed. `spans[i][k]`: layers i to i + k removed, counted from 0. `seconds`: what all of
    it took, in no epoch's seconds.
    """

    whole: float
    spans: tuple[tuple[float, ...], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {"whole": self.whole, "spans": [list(scores) for scores in self.spans], "seconds": self.seconds}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Ablation:
        spans = tuple(tuple(float(score) for score in scores) for scores in record["spans"])
        return cls(whole=float(record["whole"]), spans=spans, seconds=float(record["seconds"]))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended. `reason` says why for STOPPED (asha, budget), DONE (epochs, patience), FAILED and INVALID.

    A DONE or STOPPED trial has its best epoch and score; a final that is DONE has `metrics` (test split, percent
    points) and the file with its predictions. `diverged` marks a final whose loss stopped being finite. `ablation`: of a final
    for which it was asked, and whose method can be removed.
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
        ablation = self.ablation.to_json() if self.ablation else None
        return {**asdict(self), "metrics": dict(self.metrics), "ablation": ablation}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Outcome:
        counts, ablation = record.get("counts"), record.get("ablation")
        found = {
            "counts": Counts(**counts) if counts else None,
            "ablation": Ablation.from_json(ablation) if ablation else None,
        }
        return cls(**{**record, **found})
