"""Lone training processes that share a GPU: what several eager Hugging Face loops at once make of it.

    python -m benchmarks.gpu_lone METHOD FOLDER PRECISION [--smoke]     # one of the processes; `processes` starts them

The driver time-slices the processes; MPS is used if it runs. Needs torch and transformers only.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.gpu_sections import Rows
from benchmarks.gpu_setting import FULL, SMOKE, Bench, set_precision

ROOT = Path(__file__).parents[1]


def processes(bench: Bench, method: str) -> Rows:
    """Trial-steps per second of P lone eager processes at once."""
    command = [sys.executable, "-m", "benchmarks.gpu_lone", method, str(bench.model.path), bench.precision]
    command += [] if bench.cuda else ["--smoke"]
    for P in bench.scale.processes:
        if bench.time_is_short(60 + 4 * P if bench.cuda else 0):
            yield {"arm": f"{P} processes, {method}", "trial-steps/s": "not measured: no time left"}
            continue
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for _ in range(P)
        ]
        try:
            ready = [_line(w) == "ready" for w in workers]
            for w in workers:
                assert w.stdin is not None
                w.stdin.write("go\n")
                w.stdin.flush()
            rates = [float(_line(w)) for w in workers] if all(ready) else []
        finally:
            for w in workers:
                w.kill()
                w.wait()
        speed = sum(rates) if rates else "failed: a process did not start (out of memory?)"
        yield {"arm": f"{P} processes time-sliced, no MPS, {method}", "trial-steps/s": speed}


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def main() -> None:
    """Get ready, wait for the word, print steps per second over a fixed time."""
    method, folder, precision, *smoke = sys.argv[1:]
    scale, device = (SMOKE, "cpu") if smoke else (FULL, "cuda")
    if smoke:
        torch.set_num_threads(1)
    set_precision(precision)
    model = scale.encoder.at(Path(folder))
    bench = Bench(model=model, scale=scale, device=torch.device(device), precision=precision, deadline=math.inf)
    lone = bench.lone(scale.shapes[0], method)
    for _ in range(3):
        lone.step()
    print("ready", flush=True)
    sys.stdin.readline()
    start, steps = bench.clock(), 0
    while bench.clock() - start < scale.seconds:
        lone.step()
        steps += 1
    print(steps / (bench.clock() - start), flush=True)


if __name__ == "__main__":
    main()
