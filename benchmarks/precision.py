"""bf16 against fp32 for matrix products: a step of our own engine, the small real encoder, K = 1.

    python -m benchmarks.precision [--rounds 7] [--json FILE]

Sequences of 30 to 70 random tokens, batches of 16. Full fine-tuning casts its weights anew in every pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.arms import CPU, Fused, make_data, make_trials
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import resolve

MODEL, BATCH_SIZE, STEPS = "minilm", 16, 2


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(
        precision="fp32 against bf16 matrix products, all else fp32; both arms ours",
        encoder=f"{MODEL}, batches of {BATCH_SIZE} examples of 30 to 70 tokens",
    )
    measure.print_conditions(flags)
    model = resolve(MODEL)
    lengths = np.random.default_rng(0).integers(30, 71, BATCH_SIZE * STEPS * (arguments.rounds + 2))
    results: dict[str, Any] = {}
    for method in ("adapter", "full"):
        arms = {
            precision: measure.Arm(
                step=Fused(
                    Backbone.load(model, CPU, precision),
                    make_trials(1, r=64, batch_size=BATCH_SIZE, method=method),
                    make_data(lengths),
                ).step,
                repeats=STEPS,
            )
            for precision in ("fp32", "bf16")
        }
        seconds = measure.interleaved(arms, arguments.rounds, warm_up=1)
        results[method] = {"bf16 is faster, times": measure.ratio(seconds["fp32"], seconds["bf16"])}
    measure.print_table(
        ["method", "bf16 is faster, times"], [[name, *found.values()] for name, found in results.items()]
    )
    measure.write(arguments.json, "precision", flags, results)


if __name__ == "__main__":
    main()
