"""Steps captured as CUDA graphs against steps run operator by operator, on the real engine; and what else to decide on a GPU.

    python -m benchmarks.gpu_ab --json FILE [--minutes 5] [--learning FOLDER] [--only A1,A2]      # on a device
    python -m benchmarks.gpu_ab --smoke                                                           # on a CPU, tiny, not captured

`FOLDER`: written by `python -m benchmarks.gpu_learning --prepare`; without it, A3 is not measured. Rows are printed and written
as they are found. Needs torch and transformers only. Without a device it measures nothing and exits with 4; a section that
fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.gpu_ab_sections import a1_curve, a3_learning, a4_equality, a5_joining, a6_methods, a7_kernels
from benchmarks.gpu_gathers import a2_gathers
from benchmarks.gpu_loop import Section, conditions, measure_all
from benchmarks.gpu_setting import FULL, SMOKE, Bench, set_precision


def sections_for(learning: Path | None) -> dict[str, Section]:
    scores = partial(a3_learning, folder=learning)
    scores.__doc__ = a3_learning.__doc__
    return {
        "A1": a1_curve,
        "A2": a2_gathers,
        "A3": scores,
        "A4": a4_equality,
        "A5": a5_joining,
        "A6": a6_methods,
        "A7": a7_kernels,
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny encoder on the CPU, about a minute")
    parser.add_argument("--minutes", type=float, default=5, help="start no section after so long")
    parser.add_argument("--learning", type=Path, metavar="FOLDER", help="the model and the tokens of A3")
    parser.add_argument("--only", metavar="A1,A2", help="these sections alone")
    arguments = parser.parse_args(words)
    sections = sections_for(arguments.learning)
    names = arguments.only.split(",") if arguments.only else list(sections)
    if unknown := [name for name in names if name not in sections]:
        parser.error(f"no section is called {', '.join(unknown)}: there are {', '.join(sections)}")
    if not arguments.smoke and not torch.cuda.is_available():
        print("not measured: no CUDA device")
        return 4
    if arguments.smoke:
        torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * arguments.minutes
    set_precision("bf16")
    scale = SMOKE if arguments.smoke else replace(FULL, residents=(1, 4, 16, 64), shapes=((8, 64), (8, None)))
    device = torch.device("cpu" if arguments.smoke else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        model = scale.encoder.save(Path(folder))
        bench = Bench(model=model, scale=scale, device=device, precision="bf16", deadline=deadline)
        flags = conditions(
            bench,
            precision="bf16 except where a row says otherwise",
            clock="wall clock, device synchronised; warm-up excluded, making the batches included",
        )
        measure.print_conditions(flags)
        good = measure_all(bench, "gpu_ab", {name: sections[name] for name in names}, flags, arguments.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
