"""The check on ourselves: a winner re-trained with a plain Hugging Face loop, padded batches, nothing of our engine.

    python -m benchmarks.plain_loop --task agreement --method adapter --lr 1e-3 --batch-size 8 --seeds 1,2,3

Prints the test score of each seed in both arms, and the difference of the means beside the spread over seeds. Both arms use
the same split, order of examples, starting values, schedule and optimiser settings; dropout is drawn differently.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from search_spaces.language import Cell, Recipe
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.families.family import SUBLAYERS
from trainables.backbone.models import Model, resolve
from trainables.peft_training.batches import Padding
from trainables.seeds import permutation
from trainables.tasks.forms.form import Form
from trainables.tasks.forms.regression import Regression
from trainables.tasks.metrics import compute_metrics
from trainables.tasks.task_data import Split, TaskData
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read
from trainables.training.engine import Engine
from trainables.training.parameter_counts import build
from trainables.training.parameter_layout import ParameterLayout


class Bottleneck(nn.Module):
    """A Houlsby adapter as it is usually written, near the identity at its start."""

    def __init__(self, width: int, r: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, r), nn.Linear(r, width)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=1e-2)
            nn.init.zeros_(linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(torch.relu(self.down(h)))


def plain_model(model: Model, trial: Trial, outputs: int) -> nn.Module:
    """A Hugging Face classifier, with adapters after both sub-layers' dropout when the method asks for them, at our start."""
    transformers_logging.set_verbosity_error()
    network: Any = AutoModelForSequenceClassification.from_pretrained(model.path, num_labels=outputs)
    if trial.method == "adapter":
        _copy_adapters(insert_adapters(network, model, int(trial.settings["r"])), _start(model, trial, outputs))
    _copy_head(network, model, _start(model, trial, outputs))
    for module in network.modules():
        if isinstance(module, nn.Dropout) and trial.recipe.dropout >= 0:
            module.p = trial.recipe.dropout
    return network


def insert_adapters(network: Any, model: Model, r: int) -> list[Bottleneck]:
    """Adapters of width `r` after both sub-layers' dropout; LayerNorms and head are trained with them, the rest is frozen.

    For families whose sub-layers both end with a dense layer and dropout, side by side in one module.
    """
    family = FAMILIES[model.family]
    assert family.dropped_outputs == tuple(SUBLAYERS), f"{model.family} has no dropout to put an adapter behind"
    base = getattr(network, family.prefix)
    network.requires_grad_(False)
    for trained in (network.classifier, *map(base.get_submodule, family.norm_paths(model.shape.layers))):
        trained.requires_grad_(True)
    adapters = []
    for layer in range(model.shape.layers):
        for sites in SUBLAYERS.values():
            output = base.get_submodule(family.map_path(layer, sites[-1]).rpartition(".")[0])
            adapters.append(Bottleneck(model.shape.width, r))
            output.dropout = nn.Sequential(output.dropout, adapters[-1])
    return adapters


def train_plain(model: Model, trial: Trial, data: TaskData) -> tuple[float, list[float]]:
    """(test score of the best validation epoch, mean training loss of each epoch)."""
    torch.manual_seed(trial.seed)
    network, recipe = plain_model(model, trial, data.task.outputs), trial.recipe
    offset = FAMILIES[model.family].first_position
    steps = -(-len(data.train) // trial.batch_size) * recipe.epochs
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in network.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, trial.lr, (recipe.beta1, recipe.beta2), recipe.eps)
    warm = math.ceil(recipe.warmup * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: (done + 1) / warm if done < warm else (steps - done) / max(1, steps - warm)
    )
    best, kept, losses = -1e9, None, []
    for epoch in range(recipe.epochs):
        order, total = permutation(len(data.train), trial.seed, "order", epoch), []
        network.train()
        for start in range(0, len(order), trial.batch_size):
            chosen = order[start : start + trial.batch_size]
            loss = network(**padded(data.train, chosen, offset, data.task.form)).loss
            loss.backward()
            nn.utils.clip_grad_norm_(decayed + others, recipe.clip)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            total.append(float(loss.detach()))
        losses.append(statistics.fmean(total))
        score = compute_metrics(data.task, outputs_of(network, data.validation, offset), data.validation.labels).score
        if score > best:
            best, kept = score, copy.deepcopy(network.state_dict())
    assert kept is not None
    network.load_state_dict(kept)
    return compute_metrics(data.task, outputs_of(network, data.test, offset), data.test.labels).score, losses


def train_ours(model: Model, trial: Trial, data: TaskData) -> tuple[float, list[float]]:
    engine = Engine(Backbone.load(model, torch.device("cpu")))
    state = engine.add_trial(trial, data)
    while not state.done:
        engine.step()
    return engine.test(trial.id).metrics[data.task.metrics[0]], [p.loss or float("nan") for p in state.progress]


def padded(split: Split, chosen: np.ndarray, offset: int, form: Form) -> dict[str, Tensor]:
    """The batch as it is usually fed: [B, longest] with an attention mask."""
    labels = torch.from_numpy(split.labels[chosen])
    batch = Padding(pad=0, token_types=True, first_position=offset).inputs(split, chosen)
    return {**batch, "labels": labels if isinstance(form, Regression) else labels.long()}


@torch.no_grad()
def outputs_of(network: nn.Module, split: Split, offset: int) -> np.ndarray:
    network.eval()
    parts = []
    for start in range(0, len(split), 32):
        batch = padded(split, np.arange(start, min(start + 32, len(split))), offset, False)
        batch.pop("labels")
        parts.append(network(**batch).logits)
    return torch.cat(parts).numpy()


def _start(model: Model, trial: Trial, outputs: int) -> dict[str, Tensor]:
    backbone = Backbone.load(model, torch.device("cpu"))
    layout = ParameterLayout(build(trial.method, trial.settings, model.shape), backbone, outputs)
    row = layout.initial_values(trial.seed, backbone)
    return {e.name: row[e.start : e.stop].view(e.shape) for e in layout.entries}


@torch.no_grad()
def _copy_adapters(adapters: list[Bottleneck], start: dict[str, Tensor]) -> None:
    for i, adapter in enumerate(adapters):
        prefix = f"{i // 2}.{('attention', 'ffn')[i % 2]}.output."
        for part, linear in (("down", adapter.down), ("up", adapter.up)):
            linear.weight.copy_(start[prefix + part].T)
            linear.bias.copy_(start[f"{prefix}{part}_bias"])


@torch.no_grad()
def _copy_head(network: Any, model: Model, start: dict[str, Tensor]) -> None:
    head = network.classifier
    if not model.shape.pooler:
        head.dense.weight.copy_(start["head.dense"].T)
        head.dense.bias.copy_(start["head.dense_bias"])
        head = head.out_proj
    head.weight.copy_(start["head.out"].T)
    head.bias.copy_(start["head.out_bias"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--task", default="agreement")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--method", choices=("adapter", "full"), default="adapter")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--train-examples", type=int, default=320)
    parser.add_argument("--seeds", default="1,2,3")
    a = parser.parse_args()
    torch.set_num_threads(1)
    model = resolve(a.model)
    loaded = load(a.task, data_dir=a.data_dir, folder=Path(), train_examples=a.train_examples, test_examples=0)
    with tempfile.TemporaryDirectory() as cache:
        data = read(prepare(loaded, str(model.path), 128, Path(cache)))
    arms: dict[str, list[float]] = {"ours": [], "plain": []}
    for seed in map(int, a.seeds.split(",")):
        trial = Trial(
            cell=Cell(model=a.model, task=a.task, method=a.method),
            method=a.method,
            settings={} if a.method == "full" else {"r": a.r},
            lr=a.lr,
            batch_size=a.batch_size,
            seed=seed,
            phase="final",
            recipe=Recipe(epochs=a.epochs, patience=a.epochs),
            weights=model.fingerprint,
            split=loaded.fingerprint,
        )
        for arm, train in (("ours", train_ours), ("plain", train_plain)):
            score, losses = train(model, trial, data)
            arms[arm].append(score)
            print(f"seed {seed} {arm:5}  test {score:.2f}  losses {' '.join(f'{x:.4f}' for x in losses)}", flush=True)
    means = {arm: statistics.fmean(scores) for arm, scores in arms.items()}
    spreads = {arm: statistics.stdev(scores) if len(scores) > 1 else float("nan") for arm, scores in arms.items()}
    print(
        f"ours {means['ours']:.2f} ± {spreads['ours']:.2f}, plain {means['plain']:.2f} ± {spreads['plain']:.2f}", end=""
    )
    print(f", difference of means {means['ours'] - means['plain']:+.2f}; majority {loaded.majority:.2f}")


if __name__ == "__main__":
    main()
