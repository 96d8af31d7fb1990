"""What a GPU makes of the idea: the measurements G1 to G8, without Ray, on one device.

    python -m benchmarks.gpu [--precision bf16] [--minutes 8] [--json FILE]
    python -m benchmarks.gpu --smoke          # everything, tiny, on the CPU: shows that the script runs

Needs torch and transformers only. BERT-base with random weights, adapters of width 32. Baselines: a lone eager Hugging Face
loop; the best lone one (torch.compile, fused AdamW); P such processes that the driver time-slices on the device, without MPS.
Wall-clock time, the device synchronised before each reading. Without a device it measures nothing and exits with 4; a
section that fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.gpu_loop import conditions, measure_all
from benchmarks.gpu_sections import SECTIONS
from benchmarks.gpu_setting import FULL, SMOKE, Bench, set_precision

# Read by cuBLAS when it starts; the equality check with deterministic algorithms needs it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
PRECISIONS = {
    "fp32": "fp32, TF32 off, both arms",
    "tf32": "fp32 stored, TF32 products, both arms",
    "bf16": "fp32 parameters and moments; ours: bf16 matrix products; lone: bf16 autocast",
}


def work(bench: Bench, method: str) -> None:
    """A lone process: get ready, wait for the word, print steps per second over a fixed time."""
    lone = bench.lone(bench.scale.shapes[0], method)
    for _ in range(3):
        lone.step()
    print("ready", flush=True)
    sys.stdin.readline()
    start, steps = bench.clock(), 0
    while bench.clock() - start < bench.scale.seconds:
        lone.step()
        steps += 1
    print(steps / (bench.clock() - start), flush=True)


def print_tables(bench: Bench) -> None:
    for name in sorted(bench.tables):
        rows = bench.tables[name]
        headings = list(dict.fromkeys(key for row in rows for key in row))
        print(f"\n{name}: {(SECTIONS[name].__doc__ or '').strip()}")
        measure.print_table(headings, [[row.get(heading, "") for heading in headings] for row in rows])


def flags_of(bench: Bench) -> dict[str, str]:
    return conditions(
        bench,
        precision=PRECISIONS[bench.precision],
        compile="ours: none, no CUDA graphs; lone: none but where the table says so",
        processes="time-sliced by the driver; MPS not used",
        clock="wall clock, device synchronised; warm-up, evaluation and start excluded, making the batches included",
    )


def main(words: Sequence[str] | None = None) -> int:
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny encoder on the CPU, about half a minute of CPU time"
    )
    parser.add_argument("--precision", choices=list(PRECISIONS), default="bf16")
    parser.add_argument("--minutes", type=float, default=8, help="start no section after so long")
    parser.add_argument("--worker", choices=("adapter", "full"), help="be one lone process of the P (internal)")
    parser.add_argument("--folder", type=Path, help="the encoder of a worker (internal)")
    arguments = parser.parse_args(words)
    if not arguments.smoke and not torch.cuda.is_available():
        print("not measured: no CUDA device")
        return 4
    if arguments.smoke:
        torch.set_num_threads(1)
    set_precision(arguments.precision)
    scale = SMOKE if arguments.smoke else FULL
    settings: dict[str, Any] = {
        "scale": scale,
        "device": torch.device("cpu" if arguments.smoke else "cuda"),
        "precision": arguments.precision,
        "deadline": time.monotonic() + 60 * arguments.minutes,
    }
    if arguments.worker:
        work(Bench(model=scale.encoder.at(arguments.folder), **settings), arguments.worker)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model=scale.encoder.save(Path(folder)), **settings)
        flags = flags_of(bench)
        good = measure_all(bench, "gpu", SECTIONS, flags, arguments.json)
    measure.print_conditions(flags)
    print_tables(bench)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
