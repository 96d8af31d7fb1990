"""Encoders so small that a step is all overhead: what fusing saves where arithmetic costs nothing.

    python -m benchmarks.tiny_encoders [--rounds 15] [--json FILE]

C1: d16, 12 layers, 8 x 10 tokens: 16 residents against a lone Hugging Face loop. C2: d32, 4 layers, 8 x 12 tokens: against
the lone loop and against the engine with one resident. CPU time per trial-step of one torch thread. The ratios show that
the overhead of a step is shared by its residents; they say nothing about the speed of a GPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.arms import CPU, Encoder, Fused, Lone, make_data, make_trials
from trainables.backbone.backbone import Backbone

K = 16
CASES = {
    "C1": (Encoder(layers=12, width=16, heads=2), 10),
    "C2": (Encoder(layers=4, width=32, heads=4), 12),
}


def compare(encoder: Encoder, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per trial-step of the lone loop and of the engine with 1 and K residents."""
    with tempfile.TemporaryDirectory() as folder:
        model = encoder.save(Path(folder))
        # Every resident's epoch outlasts the measurement: 16 calls a round and the warm-up.
        data = make_data([tokens] * 8 * K * (rounds + 1))
        trials, backbone = make_trials(K, r=8), Backbone.load(model, CPU)
        lone = Lone(model, trials[0], data)
    arms = {
        "lone": measure.Arm(step=lone.step, repeats=K),
        "K=1": measure.Arm(step=Fused(backbone, trials[:1], data).step, repeats=K),
        f"K={K}": measure.Arm(step=Fused(backbone, trials, data).step, units=K, repeats=2),
    }
    return measure.interleaved(arms, rounds, warm_up=3)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions()
    measure.print_conditions(flags)
    results: dict[str, Any] = {}
    rows = []
    for name, (encoder, tokens) in CASES.items():
        seconds = compare(encoder, tokens, arguments.rounds)
        fused = seconds[f"K={K}"]
        ratios = {arm: measure.ratio(seconds[arm], fused) for arm in ("lone", "K=1")}
        milliseconds = {arm: measure.Spread.of([1e3 * s for s in each]) for arm, each in seconds.items()}
        results[name] = {"ms_per_trial_step": milliseconds, "times_faster_than": ratios}
        rows += [
            [name, f"{encoder}, 8 x {tokens}", arm, each, ratios.get(arm, "")] for arm, each in milliseconds.items()
        ]
    measure.print_table(["", "encoder", "arm", "CPU ms per trial-step", f"K={K} is faster, times"], rows)
    measure.write(arguments.json, "tiny_encoders", flags, results)


if __name__ == "__main__":
    main()
