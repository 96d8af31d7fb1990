"""What fusing brings beside rows of peft: LoRA trials on one frozen encoder against as many rows of peft, which train alone.

    python -m benchmarks.peft_rows [--rounds 7] [--trials 8] [--json FILE]

CPU time per trial-step of one torch thread: the same data, order, schedule and dropout rates on both sides, LoRA of the
same rank on the same linear maps. Rows of peft take turns, as on a device worker. The small encoder has random weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import measure
from benchmarks.arms import CPU, Encoder, Fused, make_data, make_trials
from search_spaces.peft_rows import PEFT, peft_row
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model
from trainables.peft_training.peft_engine import PeftEngine
from trainables.tasks.task_data import TaskData

RANK, TOKENS = 8, 24
ENCODERS = {"MiniLM's shape": Encoder(layers=6, width=384, heads=12), "small": Encoder(layers=4, width=64, heads=4)}


class Alone:
    """As many engines as trials, one step of each in turn."""

    def __init__(self, model: Model, trials: Sequence[Trial], data: TaskData):
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["query", "value"]}
        self._engines = [PeftEngine(model, CPU) for _ in trials]
        for engine, trial in zip(self._engines, trials, strict=True):
            engine.add_trial(replace(trial, method=PEFT, settings=peft_row(config).fixed), data)

    def step(self) -> None:
        for engine in self._engines:
            assert not engine.step(), "the measurement ran into the end of an epoch"


def compare(encoder: Encoder, number: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per trial-step of rows of peft and of fused trials."""
    with tempfile.TemporaryDirectory() as folder:
        model = encoder.save(Path(folder))
        data = make_data([TOKENS] * 8 * (rounds + 4))
        trials = make_trials(number, r=RANK, method="lora")
        arms = {
            "peft": measure.Arm(step=Alone(model, trials, data).step, units=number),
            "fused": measure.Arm(step=Fused(Backbone.load(model, CPU), trials, data).step, units=number),
        }
        return measure.interleaved(arms, rounds, warm_up=2)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(optimiser="peft: torch AdamW; ours: AdamW on flat buffers")
    measure.print_conditions(flags)
    results, rows = {}, []
    for name, encoder in ENCODERS.items():
        seconds = compare(encoder, arguments.trials, arguments.rounds)
        faster = measure.ratio(seconds["peft"], seconds["fused"])
        milliseconds = {arm: measure.Spread.of([1e3 * s for s in each]) for arm, each in seconds.items()}
        results[name] = {"ms_per_trial_step": milliseconds, "times_faster": faster}
        rows.append([name, milliseconds["peft"], milliseconds["fused"], faster])
    measure.print_table(["encoder", "peft, ms per trial-step", f"{arguments.trials} fused", "faster, times"], rows)
    measure.write(arguments.json, "peft_rows", flags, results)


if __name__ == "__main__":
    main()
