"""What fusing brings beside rows of peft: LoRA trials on one frozen encoder against as many rows of peft, which train alone.

    python -m benchmarks.peft_rows [--rounds 7] [--trials 8] [--json FILE]
    python -m benchmarks.peft_rows --model mpnet-base --data-dir GLUE --task mrpc --trials 1

CPU time per trial-step of one torch thread: the same data, order, schedule and dropout rates on both sides, LoRA of the
same rank on the query and value maps. Rows of peft take turns, as on a device worker, and pad their mini-batches to the longest
example; ours are packed. Without `--model`, encoders have random weights and all examples 24 tokens, so that nothing is padded.
With it and one trial, the ratio is what packing alone brings on the lengths of a real task.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.arms import CPU, Encoder, Fused, make_data, make_trials
from search_spaces.peft_rows import PEFT, peft_row
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.models import Model, resolve
from trainables.peft_training.peft_engine import PeftEngine
from trainables.tasks.task_data import TaskData
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read

RANK, TOKENS, LENGTH = 8, 24, 128
ENCODERS = {"MiniLM's shape": Encoder(layers=6, width=384, heads=12), "small": Encoder(layers=4, width=64, heads=4)}


class Alone:
    """As many engines as trials, one step of each in turn. The trials become rows of peft with the rank that they have.

    targets: peft's `target_modules`; by default the query and value maps.
    """

    def __init__(
        self, model: Model, trials: Sequence[Trial], data: TaskData, device: torch.device = CPU, targets: str = ""
    ):
        paths = (FAMILIES[model.family].map_path(0, site) for site in ("attention.query", "attention.value"))
        names = targets or [path.rpartition(".")[2] for path in paths]
        self._engines = [PeftEngine(model, device) for _ in trials]
        for engine, trial in zip(self._engines, trials, strict=True):
            r = int(trial.settings["r"])
            config = {"peft_type": "LORA", "r": r, "lora_alpha": 2 * r, "target_modules": names}
            engine.add_trial(replace(trial, method=PEFT, settings=peft_row(config).fixed), data)

    def step(self) -> None:
        for engine in self._engines:
            assert not engine.step(), "the measurement ran into the end of an epoch"


def compare(model: Model, data: TaskData, number: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per trial-step of rows of peft and of fused trials."""
    trials = make_trials(number, r=RANK, method="lora")
    arms = {
        "peft": measure.Arm(step=Alone(model, trials, data).step, units=number),
        "fused": measure.Arm(step=Fused(Backbone.load(model, CPU), trials, data).step, units=number),
    }
    return measure.interleaved(arms, rounds, warm_up=2)


def cases(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Model, TaskData]]:
    """The model that was asked for with a real task, or the encoders with random weights and data."""
    if arguments.model:
        model = resolve(arguments.model)
        loaded = load(arguments.task, data_dir=arguments.data_dir, folder=Path(), train_examples=0, test_examples=0)
        yield f"{arguments.model}, {arguments.task}", model, read(prepare(loaded, str(model.path), LENGTH, folder))
        return
    for name, encoder in ENCODERS.items():
        data = make_data([TOKENS] * 8 * (arguments.rounds + 4))
        yield name, encoder.save(folder / name.replace(" ", "-")), data


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--model", help="a real model, on a real task")
    parser.add_argument("--data-dir", type=Path, help="folder of GLUE's TSV files; without it, from the Hub")
    parser.add_argument("--task", default="mrpc")
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(optimiser="peft: torch AdamW; ours: AdamW on flat buffers")
    measure.print_conditions(flags)
    results, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, model, data in cases(arguments, Path(folder)):
            seconds = compare(model, data, arguments.trials, arguments.rounds)
            faster = measure.ratio(seconds["peft"], seconds["fused"])
            milliseconds = {arm: measure.Spread.of([1e3 * s for s in each]) for arm, each in seconds.items()}
            results[name] = {"ms_per_trial_step": milliseconds, "times_faster": faster}
            rows.append([name, milliseconds["peft"], milliseconds["fused"], faster])
    measure.print_table(["model", "peft, ms per trial-step", f"{arguments.trials} fused", "faster, times"], rows)
    measure.write(arguments.json, "peft_rows", flags, results)


if __name__ == "__main__":
    main()
