"""Does the product learn on a GPU? Final test scores of four methods on a real task with the small real encoder.

    python -m benchmarks.gpu_learning --prepare FOLDER        # where the quickstart's packages are: model in fp16, tokens
    python -m benchmarks.gpu_learning FOLDER --json FILE      # the scores in fp32 on the CPU

A GPU takes part as section A3 of `benchmarks.gpu_ab`. Both sides read the same folder, whose weights are stored as halves so
that it is small. Dropout differs between a CPU and a GPU, so the scores of one seed do too: only their means and spreads compare.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from search_spaces.language import Cell, Precision, Recipe
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.training.captured_steps import CapturedSteps
from trainables.training.engine import Engine

TASK, TOKENS = "sentiment", "sentiment.safetensors"
# Settings and learning rates as in the space `quickstart`.
METHOD_TRIALS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({}, 2e-4),
    "adapter": ({"r": 16}, 2e-3),
    "lora": ({"r": 8}, 5e-3),
    "linear_probe": ({}, 1e-2),
}
SEEDS = (1, 2, 3, 4)
RECIPE = Recipe(epochs=3, patience=3, train_examples=256)
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def prepare(folder: Path) -> None:
    """Write the model with halved weights and the tokens of the task."""
    from safetensors.torch import load_file, save_file

    from trainables.tasks.task_loading import load
    from trainables.tasks.tokens import prepare as tokenise

    model = resolve("minilm")
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (model.path / name).is_file():
            shutil.copyfile(model.path / name, folder / name)
    tensors = load_file(model.path / "model.safetensors")
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    loaded = load(TASK, data_dir=None, folder=Path(), train_examples=RECIPE.train_examples, test_examples=0)
    tokens = tokenise(loaded, str(folder), RECIPE.max_length, folder / "cache")
    shutil.move(tokens, folder / TOKENS)
    shutil.rmtree(folder / "cache")


def read(folder: Path) -> tuple[Model, TaskData]:
    from trainables.tasks.tokens import read as read_tokens

    return resolve(str(folder)), read_tokens(folder / TOKENS)


def trial_of(method: str, seed: int, model: Model, data: TaskData, recipe: Recipe) -> Trial:
    settings, lr = METHOD_TRIALS[method]
    return Trial(
        cell=Cell(model="minilm", task=data.task.name, method=method),
        method=method,
        settings=settings,
        lr=lr,
        batch_size=16,
        seed=seed,
        phase="final",
        recipe=recipe,
        weights=model.fingerprint,
        split=data.fingerprint,
    )


def final_scores(
    model: Model,
    data: TaskData,
    device: torch.device,
    precision: Precision,
    captured: Callable[[], CapturedSteps | None] = lambda: None,
    methods: tuple[str, ...] = tuple(METHOD_TRIALS),
    seeds: tuple[int, ...] = SEEDS,
    recipe: Recipe = RECIPE,
) -> dict[str, list[float]]:
    """The test scores of each method's seeds. Trials that can share a backbone train together."""
    scores: dict[str, list[float]] = {method: [] for method in methods}
    trials = [trial_of(method, seed, model, data, recipe) for method in methods for seed in seeds]
    together = [t for t in trials if METHODS[t.method].shares_backbone]
    groups = [together] * bool(together) + [[t] for t in trials if t not in together]
    for group in groups:
        engine = Engine(Backbone.load(model, device, precision), captured())
        running = [engine.add_trial(trial, data) for trial in group]
        while any(not state.done for state in running):
            engine.step()
        for trial in group:
            scores[trial.method].append(engine.test(trial.id).metrics["accuracy"])
    return scores


def row_of(method: str, scores: list[float]) -> dict[str, Any]:
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return {"method": method, "mean": statistics.mean(scores), "standard deviation": spread, "scores": scores}


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true", help="write the folder")
    a = parser.parse_args()
    if a.prepare:
        prepare(a.folder)
        return
    measure.settle()
    flags = measure.conditions(clock="none: scores only")
    start = time.monotonic()
    rows = []
    for method in METHOD_TRIALS:
        found = final_scores(*read(a.folder), torch.device("cpu"), "fp32", methods=(method,))
        rows.append({"device": "cpu", "precision": "fp32", **row_of(method, found[method])})
        print(rows[-1], f"{time.monotonic() - start:.0f} s", flush=True)
        measure.write(a.json, "gpu_learning", flags, {"scores": rows})


if __name__ == "__main__":
    main()
