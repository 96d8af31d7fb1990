"""The device worker on a GPU from end to end: trials that join and leave, full memory, whole epochs, every method.

    python -m benchmarks.gpu_worker --json FILE [--minutes 2.5] [--learning FOLDER] [--only W1,W3]     # on a device
    python -m benchmarks.gpu_worker --smoke                                              # on a CPU, tiny, not captured

`FOLDER`: written by `python -m benchmarks.gpu_learning --prepare`; without it, W1 is not measured. Needs torch and transformers
only. Without a device it measures nothing and exits with 4; a section that fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import measure
from benchmarks.gpu_ab_sections import a6_methods
from benchmarks.gpu_loop import Section, run_script
from benchmarks.gpu_setting import FULL
from benchmarks.gpu_worker_sections import w1_trials, w2_memory, w3_epochs


def sections_for(learning: Path | None) -> dict[str, Section]:
    trials = partial(w1_trials, folder=learning)
    trials.__doc__ = w1_trials.__doc__
    return {"W1": trials, "W2": w2_memory, "W3": w3_epochs, "A6": a6_methods}


def main(words: Sequence[str] | None = None) -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("--learning", type=Path, metavar="FOLDER", help="the model and the tokens of W1")
    return run_script(
        "gpu_worker",
        parser,
        words,
        lambda arguments: sections_for(arguments.learning),
        replace(FULL, shapes=((8, 64), (8, None))),
        minutes=2.5,
        clock="wall clock of whole runs, loading the encoder, checkpoints and evaluation included",
    )


if __name__ == "__main__":
    sys.exit(main())
