"""What the GPU scripts have in common: their command line, the loop over their sections, and the conditions beside the results.

Needs torch and transformers only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.gpu_setting import SMOKE, Bench, Scale, release, set_precision

Row = dict[str, Any]
Section = Callable[[Bench], Iterator[Row]]


def measure_all(
    bench: Bench, script: str, sections: Mapping[str, Section], flags: Mapping[str, str], path: Path | None
) -> bool:
    """Fill the tables, section by section, shown and written row by row; False when one failed."""
    good, begun = True, time.monotonic()
    for name, section in sections.items():
        rows, start = bench.tables.setdefault(name, []), time.monotonic()
        print(f"\n{name}: {(section.__doc__ or '').strip()}", flush=True)
        try:
            for row in [{"": "not measured: no time left"}] if bench.time_is_short() else section(bench):
                _add(rows, row)
                measure.write(path, script, flags, bench.tables)
        except Exception as error:  # the other sections are worth having
            traceback.print_exc()
            _add(rows, {"": f"failed: {type(error).__name__}: {str(error)[:300]}"})
            good = False
        release()
        print(f"# {name} took {time.monotonic() - start:.0f} s, {time.monotonic() - begun:.0f} s in all", flush=True)
    measure.write(path, script, flags, bench.tables)
    return good


def _add(rows: list[Row], row: Row) -> None:
    rows.append(row)
    texts = (f"{name}: {measure.short(value) if isinstance(value, float) else value}" for name, value in row.items())
    print("  " + "  ".join(texts), flush=True)


def conditions(bench: Bench, **changes: str) -> dict[str, str]:
    """Under which flags was measured; `changes`: what one script does in another way."""
    return measure.conditions(
        **{
            "device": torch.cuda.get_device_name(bench.device)
            if bench.cuda
            else "CPU: a smoke run, its figures mean nothing",
            "encoder": f"{bench.scale.encoder}, random weights, adapters of width {bench.scale.r}",
            "cores": str(os.cpu_count()),
            **changes,
        }
    )


def run_script(
    script: str,
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None,
    sections_for: Callable[[argparse.Namespace], Mapping[str, Section]],
    scale: Scale,
    minutes: float,
    **changes: str,
) -> int:
    """Measure the sections that the command line asks for; returns the exit code. In bf16 except where a row says otherwise.

    `minutes`: the default of --minutes. `scale`: on a device. `changes`: those of `conditions`.
    """
    parser.add_argument("--smoke", action="store_true", help="a tiny encoder on the CPU, one to two minutes")
    parser.add_argument("--minutes", type=float, default=minutes, help="start no section after so long")
    parser.add_argument("--only", metavar="S1,S2", help="these sections alone")
    arguments = parser.parse_args(words)
    sections = sections_for(arguments)
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
    scale = SMOKE if arguments.smoke else scale
    device = torch.device("cpu" if arguments.smoke else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        model = scale.encoder.save(Path(folder))
        bench = Bench(model=model, scale=scale, device=device, precision="bf16", deadline=deadline)
        flags = conditions(bench, precision="bf16 except where a row says otherwise", **changes)
        measure.print_conditions(flags)
        good = measure_all(bench, script, {name: sections[name] for name in names}, flags, arguments.json)
    return 0 if good else 1
