"""Which learning rates do methods need when training is short? The best validation score of each method at each rate.

    python -m benchmarks.learning_rates [--task agreement] [--train-examples 400] [--epochs 4] [--methods adapter,lora]

The basis of the ranges in `Method.search`, with the figures in docs/decisions.md. One seed, default settings; not a comparison of
methods. The trials of all methods that share a backbone are trained together, which changes no result.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks import measure
from search_spaces.language import Cell, Recipe
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read
from trainables.training.engine import Engine

MODEL = "minilm"
SEED = 1
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def train(trials: list[Trial], model: Model, data: TaskData) -> list[float]:
    """Train trials together and return the best validation score of each, in percent points."""
    engine = Engine(Backbone.load(model, torch.device("cpu"), trials[0].recipe.precision))
    states = [engine.add_trial(trial, data) for trial in trials]
    while not all(state.done for state in states):
        engine.set_active([trial.id for trial, state in zip(trials, states, strict=True) if not state.done])
        engine.step()
    return [state.progress[-1].best_score for state in states]


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of GLUE's TSV files; without it, from the Hub")
    parser.add_argument("--task", default="agreement")
    parser.add_argument("--methods", default="full,adapter,madapter,lora,bitfit,ia3")
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--train-examples", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    a = parser.parse_args()
    measure.settle()
    flags = measure.conditions(
        model=MODEL,
        task=a.task,
        examples=str(a.train_examples),
        epochs=str(a.epochs),
        batch=str(a.batch_size),
        seed=str(SEED),
    )
    measure.print_conditions(flags)
    model, rates = resolve(MODEL), [float(rate) for rate in a.rates.split(",")]
    loaded = load(a.task, data_dir=a.data_dir, folder=Path(), train_examples=a.train_examples, test_examples=0)
    recipe = Recipe(epochs=a.epochs, patience=a.epochs)
    with tempfile.TemporaryDirectory() as cache:
        data = read(prepare(loaded, str(model.path), recipe.max_length, Path(cache)))
    print(f"constant prediction on the test split: {loaded.majority:.1f}")
    results: dict[str, dict[str, float]] = {}
    for method in a.methods.split(","):
        trials = [
            Trial(
                cell=Cell(model=MODEL, task=a.task, method=method),
                method=method,
                settings={},
                lr=rate,
                batch_size=a.batch_size,
                seed=SEED,
                phase="search",
                recipe=recipe,
                weights=model.fingerprint,
                split=data.fingerprint,
            )
            for rate in rates
        ]
        groups = [trials] if METHODS[method].shares_backbone else [[trial] for trial in trials]
        scores = [score for group in groups for score in train(group, model, data)]
        results[method] = {f"{rate:g}": score for rate, score in zip(rates, scores, strict=True)}
        print(method, " ".join(f"{rate} {score:.1f}" for rate, score in results[method].items()), flush=True)
        measure.write(a.json, "learning_rates", flags, results)


if __name__ == "__main__":
    main()
