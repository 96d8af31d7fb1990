"""NF4 against fp32 and bf16: bytes of the backbone, distance of its states from fp32, and time of a step for 1 and 8 trials.

    python -m benchmarks.quantization [--models minilm FOLDER ...] [--rounds 5] [--json FILE]

Bytes are those of all pretrained tensors after a pass, so that bf16 has its copies. States are those that heads read, of the test
texts of the task sentiment. Steps: LoRA on all maps, batches of 8 examples of 30 to 70 random tokens.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.arms import CPU, Fused, make_data, make_trials
from search_spaces.language import Precision, Recipe
from search_spaces.quantization import Nf4
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve, title
from trainables.backbone.packing import pack
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import tokenise
from trainables.training.forward_pass import ForwardPass
from trainables.training.parameter_counts import build
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters

TRIALS, BATCH_SIZE, TEXTS = (1, 8), 8, 16
ARMS: dict[str, tuple[Precision, Nf4 | None]] = {
    "fp32": ("fp32", None),
    "bf16": ("bf16", None),
    "nf4, fp32 products": ("nf4", Nf4(compute="fp32")),
    "nf4, single": ("nf4", Nf4(double_quant=False)),
    "nf4, blocks of 256": ("nf4", Nf4(block_size=256)),
    "nf4": ("nf4", Nf4()),
}
TIMED = ("fp32", "bf16", "nf4")


def states(model: Model, backbone: Backbone) -> Tensor:
    """The last hidden states [texts, D] that a head reads."""
    loaded = load("sentiment", data_dir=None, folder=Path("."), train_examples=0, test_examples=0)
    split = tokenise(loaded.test.take(tuple(range(TEXTS))), model.path, 128, loaded.task.form)
    layout = ParameterLayout(build("linear_probe", {}, model.shape), backbone, 2)
    parameters = StackedParameters(layout, backbone, Recipe(), layout.initial_values(0, backbone)[None])
    rows = pack([(split, np.arange(TEXTS))], backbone.indexed_heads, CPU, reads_last=model.shape.reads_last)
    with torch.no_grad():
        return backbone.states(ForwardPass(backbone, [Segment(parameters, 0, 1)], rows, None))[0]


def distance(model: Model) -> dict[str, tuple[float, int]]:
    """Of each arm, the distance of its states from fp32's, relative to these, and the bytes of its backbone."""
    found, exact = {}, None
    for name, (precision, nf4) in ARMS.items():
        backbone = Backbone.load(model, CPU, precision, nf4)
        h = states(model, backbone)
        exact = h if exact is None else exact
        found[name] = (((h - exact).norm() / exact.norm()).item(), backbone.num_bytes)
    return found


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["minilm"])
    parser.add_argument("--rounds", type=int, default=5, help="0: bytes and distances alone")
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(
        precision="frozen maps in fp32, bf16 or 4 bits; LoRA on all maps", models=" ".join(arguments.models)
    )
    measure.print_conditions(flags)
    results: dict[str, Any] = {}
    for name in arguments.models:
        model = resolve(name)
        each: dict[str, Any] = {"from fp32": distance(model)}
        rows = [[arm, f"{size / 2**20:.1f}", f"{far:.2g}"] for arm, (far, size) in each["from fp32"].items()]
        print(f"\n{title(name)}, {model.shape.total:,} parameters")
        measure.print_table(["precision", "MiB", "distance from fp32"], rows)
        lengths = np.random.default_rng(0).integers(30, 71, BATCH_SIZE * (arguments.rounds + 2))
        for number in TRIALS if arguments.rounds else ():
            trials = [
                replace(trial, settings={"r": 8, "targets": "all"})
                for trial in make_trials(number, r=8, batch_size=BATCH_SIZE, method="lora")
            ]
            arms = {
                arm: measure.Arm(step=Fused(Backbone.load(model, CPU, *ARMS[arm]), trials, make_data(lengths)).step)
                for arm in TIMED
            }
            seconds = measure.interleaved(arms, arguments.rounds, warm_up=1)
            each[f"{number} trials"] = {
                "nf4 takes, times bf16": measure.ratio(seconds["nf4"], seconds["bf16"]),
                "nf4 takes, times fp32": measure.ratio(seconds["nf4"], seconds["fp32"]),
            }
        timed = [[f"{number}", *each[f"{number} trials"].values()] for number in TRIALS if arguments.rounds]
        measure.print_table(["trials", "nf4 takes, times bf16", "nf4 takes, times fp32"], timed)
        results[title(name)] = each
    measure.write(arguments.json, "quantization", flags, results)


if __name__ == "__main__":
    main()
