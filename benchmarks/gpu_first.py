"""The first minutes on a GPU: what runs, what waits, where the time goes, and what each further design would gain.

    python -m benchmarks.gpu_first --json FILE [--minutes 8] [--only S1,S2]      # on a device
    python -m benchmarks.gpu_first --smoke                                       # everything that a CPU can run, tiny

The most valuable sections come first. Each prints its rows as it finds them, and the file is written after every row: a time
limit loses only what was not measured yet. Needs torch and transformers only.
Without a device it measures nothing and exits with 4; a section that fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

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
from benchmarks.gpu_loop import Section, run_script
from benchmarks.gpu_sections import equality, joining
from benchmarks.gpu_setting import FULL

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
    "G5": equality,
    "S7": s7_compiled,
    "S8": s8_attention,
    "S9": s9_long,
    "S10": s10_memory,
    "G6": joining,
}


def main(words: Sequence[str] | None = None) -> int:
    return run_script(
        "gpu_first",
        measure.parser(__doc__),
        words,
        lambda arguments: SECTIONS,
        replace(FULL, residents=(1, 4, 16, 64)),
        minutes=8,
        compile="none except in S5 and S7",
        clock="wall clock, device synchronised; warm-up excluded, making the batches included except in S5",
    )


if __name__ == "__main__":
    sys.exit(main())
