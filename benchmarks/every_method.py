"""Every method once on real data with the small real encoder, each alone: does it train, how far does it come, what does it cost?

    python -m benchmarks.every_method --data-dir GLUE [--task mrpc] [--train-examples 600] [--epochs 3] [--json FILE]

Not a comparison: one seed, one learning rate (the third of the four that the method recommends), defaults otherwise. The score is
the best epoch's on validation; CPU seconds are those of the whole trial, one thread.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from search_spaces.language import Cell, Choice, Recipe
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read
from trainables.training.engine import Engine

MODEL = "minilm"


def run(method: str, model: Model, data: TaskData, recipe: Recipe, batch_size: int) -> dict[str, Any]:
    """One trial from its first step to its last."""
    lrs = METHODS[method].search["lr"]
    assert isinstance(lrs, Choice)
    trial = Trial(
        cell=Cell(model=MODEL, task=data.task.name, method=method),
        method=method,
        settings={},
        lr=float(lrs.values[2]),
        batch_size=batch_size,
        seed=1,
        phase="search",
        recipe=recipe,
        weights=model.fingerprint,
        split=data.fingerprint,
    )
    start = time.process_time()
    engine = Engine(Backbone.load(model, torch.device("cpu"), recipe.precision))
    state = engine.add_trial(trial, data)
    while not state.done:
        engine.step()
    return {
        "lr": trial.lr,
        "best score": state.progress[-1].best_score,
        "losses": [p.loss for p in state.progress],
        "trained": engine.counts(trial.id).trained,
        "CPU s": time.process_time() - start,
    }


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of GLUE's TSV files; without it, from the Hub")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--train-examples", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    a = parser.parse_args()
    measure.settle()
    flags = measure.conditions(task=a.task, examples=str(a.train_examples), epochs=str(a.epochs), precision=a.precision)
    measure.print_conditions(flags)
    model = resolve(MODEL)
    loaded = load(a.task, data_dir=a.data_dir, folder=Path(), train_examples=a.train_examples, test_examples=0)
    recipe = Recipe(epochs=a.epochs, patience=a.epochs, precision=a.precision)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        data = read(prepare(loaded, str(model.path), recipe.max_length, Path(cache)))
    for method in a.methods.split(","):
        results[method] = run(method, model, data, recipe, a.batch_size)
        print(method, results[method], flush=True)
        measure.write(a.json, "every_method", flags, results)
    print()
    headings = ["lr", "best score", "losses", "trained", "CPU s"]
    rows = [
        [name, *(f"{x:.3f}" if isinstance(x, float) else x for x in (found[h] for h in headings))]
        for name, found in results.items()
    ]
    measure.print_table(["method", *headings], [[*r[:3], " ".join(f"{x:.3f}" for x in r[3]), *r[4:]] for r in rows])


if __name__ == "__main__":
    main()
