"""What the benchmarks time: an engine with its residents, and one trial in a plain Hugging Face loop.

Both take the same encoder, the same examples in the same order, the same method, optimiser constants and dropout rates.
Encoders have random weights and sequences random tokens: neither changes the time of a step.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from benchmarks.plain_loop import padded, plain_model
from search_spaces.language import Cell, Recipe
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.models import Model, shape_of
from trainables.methods import METHODS
from trainables.seeds import permutation
from trainables.tasks.task_data import Split, Task, TaskData
from trainables.training.captured_steps import CapturedSteps
from trainables.training.engine import Engine

os.environ.setdefault("HF_HUB_OFFLINE", "1")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Sizes of a BERT."""

    layers: int
    width: int
    heads: int
    vocabulary: int = 1000

    @property
    def config(self) -> transformers.BertConfig:
        return transformers.BertConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
        )

    def save(self, folder: Path) -> Model:
        """Write one with random weights; `Backbone.load` and `plain_model` read it as any other model."""
        return save_random(self.config, folder, str(self))

    def at(self, folder: Path) -> Model:
        """The one that was saved there."""
        return random_model(self.config, folder, str(self))

    def __str__(self) -> str:
        return f"d{self.width} L{self.layers} H{self.heads}"


def save_random(config: Any, folder: Path, name: str) -> Model:
    """Write a pretrained model of any family with random weights. config: of transformers."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    getattr(transformers, FAMILIES[config.model_type].model)(config).save_pretrained(folder)
    return random_model(config, folder, name)


def random_model(config: Any, folder: Path, name: str) -> Model:
    """The model of random weights in this folder."""
    shape = shape_of(config.to_dict())
    return Model(
        name=name,
        path=folder,
        known_shape=shape,
        total=shape.total,
        family=config.model_type,
        fingerprint="random",
    )


BERT_BASE = Encoder(layers=12, width=768, heads=12, vocabulary=30522)


def make_data(lengths: Sequence[int] | np.ndarray, vocabulary: int = 1000) -> TaskData:
    """A two-class task whose training examples have these lengths; the other splits are small."""
    task = Task(
        name="random",
        title="Random",
        metrics=("accuracy",),
        source="generated",
        test_source="generated",
    )
    few = lengths[:16]
    return TaskData(
        task=task,
        train=_split(np.asarray(lengths), vocabulary, 0),
        validation=_split(np.asarray(few), vocabulary, 1),
        test=_split(np.asarray(few), vocabulary, 2),
        fingerprint="random",
    )


def _split(lengths: np.ndarray, vocabulary: int, seed: int) -> Split:
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Split(
        ids=draw.integers(5, vocabulary, offsets[-1]).astype(np.int32),
        token_types=np.zeros(offsets[-1], np.int8),
        offsets=offsets,
        labels=draw.integers(0, 2, len(lengths)).astype(np.float32),
    )


def make_trials(
    number: int, *, r: int, batch_size: int = 8, method: str = "adapter", first_seed: int = 1, epochs: int = 20
) -> list[Trial]:
    """Trials that differ in seed and learning rate, each with its own data order and dropout."""
    return [
        Trial(
            cell=Cell(model="benchmark", task="random", method=method),
            method=method,
            settings={} if method == "full" else {"r": r},
            lr=1e-4 * (1 + i / 100),
            batch_size=batch_size,
            seed=first_seed + i,
            phase="search",
            recipe=Recipe(epochs=epochs, patience=epochs),
            weights="random",
            split="random",
        )
        for i in range(number)
    ]


def small_settings(method: str) -> dict[str, Any]:
    """Settings of a method that fit encoders of few layers and of any width that 8 divides."""
    takes_width = "r" in {f.name for f in dataclasses.fields(METHODS[method])} and method != "full"
    sizes = {
        "adapter_drop": {"dropped": 1},
        "c3a": {"block_size": 8},
        "oft": {"block_size": 8},
        "road": {"group_size": 8},
        "vb_lora": {"length": 8},
    }
    return {**({"r": 8} if takes_width else {}), **sizes.get(method, {})}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The lone arm's bf16, as its users switch it on; what is stored stays fp32. Ours is the backbone's own."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class Fused:
    """An engine and its residents."""

    def __init__(
        self, backbone: Backbone, trials: Sequence[Trial], data: TaskData, captured: CapturedSteps | None = None
    ):
        """`captured`: replays the engine's steps; by default they run operator by operator."""
        self.engine = Engine(backbone, captured)
        for trial in trials:
            self.engine.add_trial(trial, data)

    def step(self) -> None:
        """One step of every resident. Data must outlast the measurement: an epoch's end would time the evaluation too."""
        ended = self.engine.step()
        assert not ended, "the measurement ran into the end of an epoch"


class Lone:
    """One trial in a plain Hugging Face loop: padded batches, fused AdamW, clipping, a learning-rate schedule.

    `length`: pad every batch to so many tokens; 0: to its longest example. `compile_with`: arguments for `torch.compile`.
    """

    def __init__(
        self,
        model: Model,
        trial: Trial,
        data: TaskData,
        device: torch.device = CPU,
        *,
        length: int = 0,
        precision: str = "fp32",
        compile_with: dict[str, Any] | None = None,
    ):
        self._trial, self._data, self._device, self._length = trial, data, device, length
        self._precision, self._offset = precision, FAMILIES[model.family].first_position
        self._compiled = compile_with is not None
        transformers.utils.logging.disable_progress_bar()
        network: Any = plain_model(model, trial, data.task.outputs).to(device).train()
        self._trained = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self._trained if p.ndim > 1], "weight_decay": trial.recipe.weight_decay},
            {"params": [p for p in self._trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(groups, trial.lr, eps=trial.recipe.eps, fused=True)
        self._steps_per_epoch = math.ceil(len(data.train) / trial.batch_size)
        total = self._steps_per_epoch * trial.recipe.epochs
        warm = math.ceil(trial.recipe.warmup * total)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda done: min((done + 1) / warm, (total - done) / (total - warm))
        )
        self._network = torch.compile(network, **compile_with) if compile_with is not None else network
        self._done = 0

    def step(self) -> None:
        self.train(self.batch())

    def train(self, batch: dict[str, Tensor]) -> None:
        if self._compiled:
            torch.compiler.cudagraph_mark_step_begin()
        with autocast(self._device, self._precision):
            loss = self._network(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, self._trial.recipe.clip, foreach=True)
        self._optimiser.step()
        self._schedule.step()
        self._optimiser.zero_grad()

    def batch(self) -> dict[str, Tensor]:
        """The batch that the engine gives this trial, as it is usually fed."""
        epoch, place = divmod(self._done, self._steps_per_epoch)
        if place == 0:
            self._order = permutation(len(self._data.train), self._trial.seed, "order", epoch)
        self._done += 1
        start = place * self._trial.batch_size
        chosen = self._order[start : start + self._trial.batch_size]
        batch = padded(self._data.train, chosen, self._offset, self._data.task.form)
        if self._length:
            batch = {name: self._wider(name, tensor) for name, tensor in batch.items()}
        return {name: tensor.to(self._device) for name, tensor in batch.items()}

    def _wider(self, name: str, tensor: Tensor) -> Tensor:
        if name == "labels":
            return tensor
        if name == "position_ids":
            return (torch.arange(self._length) + self._offset).expand(len(tensor), self._length)
        return nn.functional.pad(tensor, (0, self._length - tensor.shape[1]))
