"""Steps captured as CUDA graphs against steps run operator by operator, on the real engine; and what else to decide on a GPU.

    python -m benchmarks.gpu_ab --json FILE [--minutes 5] [--learning FOLDER] [--only A1,A2]      # on a device
    python -m benchmarks.gpu_ab --smoke                                                           # on a CPU, tiny, not captured

`FOLDER`: written by `python -m benchmarks.gpu_learning --prepare`; without it, A3 is not measured. Rows are printed and written
as they are found. Needs torch and transformers only. Without a device it measures nothing and exits with 4; a section that
fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import measure
from benchmarks.gpu_ab_sections import a1_curve, a3_learning, a4_equality, a5_joining, a6_methods, a7_kernels
from benchmarks.gpu_gathers import a2_gathers
from benchmarks.gpu_loop import Section, run_script
from benchmarks.gpu_setting import FULL


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
    parser.add_argument("--learning", type=Path, metavar="FOLDER", help="the model and the tokens of A3")
    return run_script(
        "gpu_ab",
        parser,
        words,
        lambda arguments: sections_for(arguments.learning),
        replace(FULL, residents=(1, 4, 16, 64), shapes=((8, 64), (8, None))),
        minutes=5,
        clock="wall clock, device synchronised; warm-up excluded, making the batches included",
    )


if __name__ == "__main__":
    sys.exit(main())
