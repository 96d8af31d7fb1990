"""One trial of the whole-sweep comparison, without Ray: our worker against Hugging Face's Trainer, CPU seconds of one thread.

    python -m benchmarks.trial_comparison --data-dir ../shared/data/glue [--rounds 3] [--json FILE]

An epoch of training and its evaluation, from loading the model to the last score, by the same code that the two sides of
`benchmarks.sweep_comparison` run in a trial's process. What a sweep tends to as its data grows: start-up, control and
tracking are left out. Arms alternate within one process.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.sweep_comparison import PEER_TRIAL, TASKS
from benchmarks.sweep_setting import Setting
from benchmarks.tune_and_trainer import PADDINGS, read_splits, trainer_of
from search_spaces.records import Trial
from trainables.backbone.models import Model, resolve
from trainables.tasks.task_data import Loaded
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare
from trainables.worker.device_worker import InProcessTrial, open_device_worker


def ours(
    setting: Setting, model: Model, loaded: Loaded, lr: float, batch_size: int, scratch: Path
) -> Callable[[], Any]:
    """Trains the trial to its end, on a device worker as in a sweep; the worker keeps its backbone."""
    space, worker = setting.space(), open_device_worker(gpu=False)
    data = prepare(loaded, str(model.path), setting.max_length, scratch)
    trial = Trial(
        cell=space.cells[0],
        method=setting.method,
        settings=space.methods[0].fixed,
        lr=lr,
        batch_size=batch_size,
        seed=setting.seed,
        phase="search",
        recipe=space.recipe,
        weights=model.fingerprint,
        split=loaded.fingerprint,
    )
    job = {"trial": trial.to_json(), "source": setting.model, "data": str(data)}

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as checkpoints:
            own = InProcessTrial(worker, {**job, "checkpoints": checkpoints})
            for _ in range(setting.epochs):
                own.next_report()
            own.remove()

    return run


def peer(setting: Setting, model: Model, loaded: Loaded, lr: float, batch_size: int, padding: str) -> Callable[[], Any]:
    splits = read_splits(loaded, model, setting, padding)
    config = {"lr": lr, "batch_size": batch_size, "seed": setting.seed}
    return lambda: trainer_of(config, setting, model, loaded.task, splits, padding).train()


def compare(setting: Setting, data_dir: Path | None, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of the whole trial, by arm and round."""
    model = resolve(setting.model)
    cuts = {"train_examples": setting.train_examples, "test_examples": setting.test_examples}
    loaded = load(setting.task, data_dir=data_dir, folder=Path(), **cuts)
    with tempfile.TemporaryDirectory() as scratch:
        arms = {"ours": ours(setting, model, loaded, setting.lrs[0], batch_size, Path(scratch))}
        for padding in PADDINGS:
            arms[padding] = peer(setting, model, loaded, setting.lrs[0], batch_size, padding)
        return measure.interleaved({name: measure.Arm(step=arm) for name, arm in arms.items()}, rounds, warm_up=0)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of GLUE's TSV files; without it, from the Hub")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--method", choices=("adapter", "lora"), default="adapter")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch-sizes", default="8,16")
    parser.add_argument("--train-examples", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    measure.settle()
    base = Setting(
        model=a.model,
        task="",
        method=a.method,
        r=64 if a.method == "adapter" else 8,
        lrs=(1e-3,),
        epochs=1,
        train_examples=a.train_examples,
        test_examples=20,
        precision=a.precision,
    )
    flags = measure.conditions(
        precision=f"{a.precision}, both arms (peer: Trainer's bf16=True; ours: the space's recipe)",
        attention="peer: transformers' sdpa; ours: packed, explicit with dropout",
        padding="peer: longest of the batch (DataCollatorWithPadding), or all to 128; ours: packed rows",
        optimiser="peer: torch AdamW fused; ours: AdamW on flat buffers",
        clip="norm 1.0",
        clock="process time of a whole trial: model, training, evaluation; imports and tokenising excluded",
        peer=PEER_TRIAL,
        setting=str(base),
    )
    measure.print_conditions(flags)
    results: dict[str, Any] = {}
    for task in a.tasks.split(","):
        for batch_size in map(int, a.batch_sizes.split(",")):
            seconds = compare(replace(base, task=task), a.data_dir, batch_size, a.rounds)
            results[f"{task} batch {batch_size}"] = {
                "cpu_seconds": {arm: measure.Spread.of(each) for arm, each in seconds.items()},
                "times_slower": {padding: measure.ratio(seconds[padding], seconds["ours"]) for padding in PADDINGS},
            }
            print(task, batch_size, results[f"{task} batch {batch_size}"]["times_slower"], flush=True)
            measure.write(a.json, "trial_comparison", flags, {**results, "mean of medians": means(results)})
    rows = [[case, *found["cpu_seconds"].values(), *found["times_slower"].values()] for case, found in results.items()]
    rows.append(["mean", "", "", "", *means(results).values()])
    headings = ["", "ours, CPU s", "longest", "128", "ours is faster than longest, times", "than 128"]
    print()
    measure.print_table(headings, rows)


def means(results: dict[str, Any]) -> dict[str, float]:
    return {
        padding: statistics.fmean(found["times_slower"][padding].median for found in results.values())
        for padding in PADDINGS
    }


if __name__ == "__main__":
    main()
