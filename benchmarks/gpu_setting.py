"""Where and how much the GPU benchmark measures, and how it makes its arms."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.arms import BERT_BASE, Encoder, Fused, Lone, make_data, make_trials
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model
from trainables.tasks.task_data import TaskData

Shape = tuple[int, int | None]  # batch size, tokens per example; None: lengths distributed like CoLA's


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    encoder: Encoder
    r: int
    shapes: tuple[Shape, ...]
    long: tuple[int, int]
    residents: tuple[int, ...]
    processes: tuple[int, ...]
    rounds: int
    lone_steps: int
    seconds: float


FULL = Scale(
    encoder=BERT_BASE,
    r=32,
    shapes=((8, 64), (16, 64), (8, 128), (8, None)),
    long=(8, 512),
    residents=(1, 2, 4, 8, 16, 32, 64, 128),
    processes=(2, 4, 8, 16),
    rounds=5,
    lone_steps=8,
    seconds=4,
)
SMOKE = Scale(
    encoder=Encoder(layers=2, width=16, heads=2),
    r=4,
    shapes=((4, 8), (4, None)),
    long=(4, 32),
    residents=(1, 2, 4),
    processes=(2,),
    rounds=2,
    lone_steps=2,
    seconds=0.5,
)


@dataclass(kw_only=True)
class Bench:
    """One run: where, how much, with which precision, and until when."""

    scale: Scale
    device: torch.device
    precision: str
    model: Model
    deadline: float
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def clock(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def data(self, shape: Shape, steps: int = 240) -> TaskData:
        batch_size, tokens = shape
        number = batch_size * steps
        if tokens is None:
            drawn = np.random.default_rng(0).lognormal(np.log(10.2), 0.4, number)
            return make_data(np.clip(drawn.round().astype(int), 4, 47), self.scale.encoder.vocabulary)
        return make_data([tokens] * number, self.scale.encoder.vocabulary)

    def trials(self, number: int, shape: Shape, method: str = "adapter", **other: int) -> list[Trial]:
        return make_trials(number, r=self.scale.r, batch_size=shape[0], method=method, **other)

    def backbone(self) -> Backbone:
        return Backbone.load(self.model, self.device, "bf16" if self.precision == "bf16" else "fp32")

    def time_is_short(self, seconds: float = 0) -> bool:
        return time.monotonic() + seconds > self.deadline

    def fused(self, number: int, shape: Shape, method: str = "adapter") -> Fused:
        return Fused(self.backbone(), self.trials(number, shape, method), self.data(shape))

    def lone(self, shape: Shape, method: str = "adapter", **other: Any) -> Lone:
        trial = self.trials(1, shape, method)[0]
        return Lone(self.model, trial, self.data(shape), self.device, precision=self.precision, **other)

    def timed(self, **arms: measure.Arm) -> dict[str, list[float]]:
        return measure.interleaved(arms, self.scale.rounds, 3, self.clock)

    def lone_arm(self, lone: Lone) -> measure.Arm:
        return measure.Arm(step=lone.step, repeats=self.scale.lone_steps)


def set_precision(precision: str) -> None:
    """Products of fp32 matrices: exact for "fp32", else on TF32 units, in both arms."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")


def release() -> None:
    """Give back what dropped arms held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
