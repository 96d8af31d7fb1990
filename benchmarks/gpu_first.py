"""The first minutes on a GPU: what runs, what waits, where the time goes, and what each further design would gain.

    python -m benchmarks.gpu_first --json FILE [--minutes 8] [--only S1,S2]      # on a device
    python -m benchmarks.gpu_first --smoke                                       # everything that a CPU can run, tiny

The most valuable sections come first. Each prints its rows as it finds them, and the file is written after every row: a time
limit loses only what was not measured yet. Needs torch and transformers only; `benchmarks/gpu.py` describes the arms.
Without a device it measures nothing and exits with 4; a section that fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.gpu_first_graphs import s5_graphs, s7_compiled, s8_attention
from benchmarks.gpu_first_sections import (
    s0_machine,
    s1_methods,
    s2_waits,
    s3_curve,
    s4_kernels,
    s6_processes,
    s9_long,
    s10_memory,
)
from benchmarks.gpu_loop import Section, conditions, measure_all
from benchmarks.gpu_sections import g5_equality, g6_joining
from benchmarks.gpu_setting import FULL, SMOKE, Bench, set_precision

# Read by cuBLAS when it starts; the equality check with deterministic algorithms needs it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
SECTIONS: dict[str, Section] = {
    "S0": s0_machine,
    "S1": s1_methods,
    "S2": s2_waits,
    "S3": s3_curve,
    "S5": s5_graphs,
    "S4": s4_kernels,
    "S6": s6_processes,
    "G5": g5_equality,
    "S7": s7_compiled,
    "S8": s8_attention,
    "S9": s9_long,
    "S10": s10_memory,
    "G6": g6_joining,
}


def flags_of(bench: Bench) -> dict[str, str]:
    return conditions(
        bench,
        precision="bf16 except where a row says otherwise",
        compile="none except in S5 and S7",
        clock="wall clock, device synchronised; warm-up excluded, making the batches included except in S5",
    )


def main(words: Sequence[str] | None = None) -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny encoder on the CPU, one to two minutes")
    parser.add_argument("--minutes", type=float, default=8, help="start no section after so long")
    parser.add_argument("--only", metavar="S1,S2", help="these sections alone")
    arguments = parser.parse_args(words)
    names = arguments.only.split(",") if arguments.only else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"no section is called {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    if not arguments.smoke and not torch.cuda.is_available():
        print("not measured: no CUDA device")
        return 4
    if arguments.smoke:
        torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * arguments.minutes
    set_precision("bf16")
    scale = SMOKE if arguments.smoke else replace(FULL, residents=(1, 4, 16, 64))
    device = torch.device("cpu" if arguments.smoke else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        model = scale.encoder.save(Path(folder))
        bench = Bench(model=model, scale=scale, device=device, precision="bf16", deadline=deadline)
        flags = flags_of(bench)
        measure.print_conditions(flags)
        sections = {name: SECTIONS[name] for name in names}
        good = measure_all(bench, "gpu_first", sections, flags, arguments.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
