"""Padding: how much of what is computed is real tokens, and what packing real tokens into rows brings on real GLUE.

    python -m benchmarks.padding --data-dir ../shared/data/glue [--rounds 5] [--steps 2] [--json FILE]

C6. First table: real tokens as a share of the computed ones in the first 100 steps of 16 residents with their own data
orders, for batches of 8 and 16: rows packed per trial and filled up to the longest row of the step, padding to the trial's own
longest example, to the longest of all residents, and to 128. (A trial alone, packed, computes real tokens only; attention
pads to the longest example of all residents inside itself.) Second table: speed in real tokens per CPU second on a real encoder
with adapters, one resident against a plain Hugging Face loop on the same batches, padded to the longest and to 128.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.arms import CPU, Fused, Lone, make_trials
from search_spaces.language import Precision
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve
from trainables.seeds import permutation
from trainables.tasks.task_data import TaskData
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read

TASKS = ("cola", "mrpc", "stsb", "rte")
MODEL = "minilm"
LENGTH = 128
RESIDENTS = 16
STEPS = 100
PRECISIONS = {"fp32": "fp32", "bf16": "ours: bf16 products with frozen weights; lone: bf16 autocast"}
POLICIES = ("packed rows", "own longest", "longest of all", f"{LENGTH}")


def shares(lengths: np.ndarray, batch_size: int) -> dict[str, float]:
    """Real tokens / computed tokens of each policy; `lengths` of a task's training examples."""
    orders = [permutation(len(lengths), seed, "order", 0) for seed in range(1, RESIDENTS + 1)]
    steps = min(STEPS, len(lengths) // batch_size)
    chosen = np.stack([lengths[order[: steps * batch_size]].reshape(steps, batch_size) for order in orders], axis=1)
    real, longest = chosen.sum(2), chosen.max(2)  # [steps, K]
    computed = (
        real.max(1) * RESIDENTS,
        longest.sum(1) * batch_size,
        longest.max(1) * batch_size * RESIDENTS,
        np.full(steps, LENGTH * batch_size * RESIDENTS),
    )
    return {policy: float(real.sum() / c.sum()) for policy, c in zip(POLICIES, computed, strict=True)}


def speeds(
    model: Model, data: TaskData, batch_size: int, rounds: int, steps: int, precision: Precision
) -> dict[str, list[float]]:
    """CPU seconds per step of each arm; all see the same batches, so ratios are those of real tokens per second."""
    trial = make_trials(1, r=64, batch_size=batch_size)[0]
    calls = {
        "packed": Fused(Backbone.load(model, CPU, precision), [trial], data).step,
        "longest": Lone(model, trial, data, precision=precision).step,
        f"{LENGTH}": Lone(model, trial, data, length=LENGTH, precision=precision).step,
    }
    arms = {name: measure.Arm(step=call, repeats=steps) for name, call in calls.items()}
    return measure.interleaved(arms, rounds, warm_up=1)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of GLUE's TSV files")
    parser.add_argument("--batch-size", type=int, default=8, help="of the second table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps per round and arm")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(
        encoder=f"{MODEL}, adapters of width 64, batches of {arguments.batch_size} (speeds)",
        precision=PRECISIONS[arguments.precision],
    )
    measure.print_conditions(flags)
    model = resolve(MODEL)
    data: dict[str, TaskData] = {}
    with tempfile.TemporaryDirectory() as cache:
        for task in TASKS:
            loaded = load(task, data_dir=arguments.data_dir, folder=Path(), train_examples=0, test_examples=0)
            data[task] = read(prepare(loaded, str(model.path), LENGTH, Path(cache)))
    results: dict[str, Any] = {"real_token_share": {}, "packed_is_faster_than": {}}
    rows: list[list[Any]] = []
    for batch_size in (8, 16):
        for task in TASKS:
            share = shares(np.diff(data[task].train.offsets), batch_size)
            results["real_token_share"][f"{task} batch {batch_size}"] = share
            rows.append([task, batch_size, *(f"{100 * share[policy]:.0f} %" for policy in POLICIES)])
    measure.print_table(["task", "batch", *POLICIES], rows)
    rows = []
    for task in TASKS:
        seconds = speeds(
            model, data[task], arguments.batch_size, arguments.rounds, arguments.steps, arguments.precision
        )
        faster = {arm: measure.ratio(seconds[arm], seconds["packed"]) for arm in ("longest", f"{LENGTH}")}
        results["packed_is_faster_than"][task] = faster
        rows.append([task, *faster.values()])
    means = {
        arm: statistics.fmean(results["packed_is_faster_than"][task][arm].median for task in TASKS)
        for arm in ("longest", f"{LENGTH}")
    }
    results["packed_is_faster_than"]["mean of medians"] = means
    rows.append(["mean", *means.values()])
    print()
    headings = ["task", "packed / padded to longest, real tokens/s", f"packed / padded to {LENGTH}, real tokens/s"]
    measure.print_table(headings, rows)
    measure.write(arguments.json, "padding", flags, results)


if __name__ == "__main__":
    main()
