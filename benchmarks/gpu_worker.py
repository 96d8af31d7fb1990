"""The device worker on a GPU from end to end: trials that join and leave, full memory, whole epochs, every method.

    python -m benchmarks.gpu_worker --json FILE [--minutes 2.5] [--learning FOLDER] [--only W1,W3]     # on a device
    python -m benchmarks.gpu_worker --smoke                                              # on a CPU, tiny, not captured

`FOLDER`: written by `python -m benchmarks.gpu_learning --prepare`; without it, W1 is not measured. Needs torch and transformers
only. Without a device it measures nothing and exits with 4; a section that fails says so in its table, and the exit code is 1.
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
from benchmarks.gpu_ab_sections import a6_methods
from benchmarks.gpu_loop import Section, conditions, measure_all
from benchmarks.gpu_setting import FULL, SMOKE, Bench, set_precision
from benchmarks.gpu_worker_sections import w1_trials, w2_memory, w3_epochs


def sections_for(learning: Path | None) -> dict[str, Section]:
    trials = partial(w1_trials, folder=learning)
    trials.__doc__ = w1_trials.__doc__
    return {"W1": trials, "W2": w2_memory, "W3": w3_epochs, "A6": a6_methods}


def main(words: Sequence[str] | None = None) -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny encoder on the CPU, about a minute")
    parser.add_argument("--minutes", type=float, default=2.5, help="start no section after so long")
    parser.add_argument("--learning", type=Path, metavar="FOLDER", help="the model and the tokens of W1")
    parser.add_argument("--only", metavar="W1,W3", help="these sections alone")
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
    scale = SMOKE if arguments.smoke else replace(FULL, shapes=((8, 64), (8, None)))
    device = torch.device("cpu" if arguments.smoke else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        model = scale.encoder.save(Path(folder))
        bench = Bench(model=model, scale=scale, device=device, precision="bf16", deadline=deadline)
        flags = conditions(
            bench,
            precision="bf16 except where a row says otherwise",
            clock="wall clock of whole runs, loading the encoder, checkpoints and evaluation included",
        )
        measure.print_conditions(flags)
        good = measure_all(bench, "gpu_worker", {name: sections[name] for name in names}, flags, arguments.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
