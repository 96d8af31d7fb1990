"""What both GPU scripts have in common: the loop over their sections, and the conditions that stand beside the results.

Needs torch and transformers only.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.gpu_setting import Bench, release

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
