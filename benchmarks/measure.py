"""How the benchmarks measure: arms taken in turns, one ratio per round, median and spread, and the conditions beside them.

Knows nothing of what is timed. Importing it costs no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# By default glibc maps and unmaps large activations at every step, which costs more than small models compute.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483648"}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of a comparison: `step` does `units` of work (trial-steps, say) and runs `repeats` times in each round."""

    step: Callable[[], object]
    units: float = 1
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The middle of several measurements, and their extremes."""

    median: float
    low: float
    high: float
    number: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=statistics.median(values), low=min(values), high=max(values), number=len(values))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)}..{short(self.high)}, n={self.number})"

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def short(value: float) -> str:
    """Three digits, and never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def interleaved(
    arms: Mapping[str, Arm], rounds: int, warm_up: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Seconds per unit of each arm, one number per round.

    Every arm runs once in each round, in alternating order, so that a slow drift of the machine meets all of them;
    `warm_up` calls of each are not counted.
    """
    for arm in arms.values():
        for _ in range(warm_up):
            arm.step()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms)[:: -1 if number % 2 else 1]:
            start = clock()
            for _ in range(arms[name].repeats):
                arms[name].step()
            seconds[name].append((clock() - start) / (arms[name].repeats * arms[name].units))
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times faster, round by round. Above 1: `fast` is."""
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    return made


def settle() -> None:
    """One torch thread and raised malloc thresholds; these must stand before the process starts, so it starts itself anew."""
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **MALLOC})
    import torch

    torch.set_num_threads(1)


def conditions(**changes: str) -> dict[str, str]:
    """Under which flags was measured; both arms where only one value stands."""
    import torch
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "precision": "fp32",
        "attention": "lone: transformers' sdpa; ours: packed, explicit with dropout",
        "padding": "lone: longest of the batch; ours: packed rows",
        "optimiser": "lone: torch AdamW fused, LambdaLR; ours: AdamW on flat buffers",
        "dropout": "0.1 hidden, attention and head",
        "clip": "norm 1.0 per trial, lone: foreach",
        "compile": "none",
        "threads": str(torch.get_num_threads()),
        "malloc": " ".join(f"{name}={os.environ.get(name, 'default')}" for name in MALLOC),
        "clock": "process time, warm-up, evaluation and start excluded, making the batches included",
        **changes,
    }


def print_conditions(flags: Mapping[str, str]) -> None:
    for name, value in flags.items():
        print(f"# {name}: {value}")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as their widest entry; floats with three digits."""
    texts = [list(headings), *([short(c) if isinstance(c, float) else str(c) for c in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def write(path: Path | None, name: str, flags: Mapping[str, str], results: Mapping[str, Any]) -> None:
    """Results as JSON, spreads included; nothing when no path was given."""
    if path is None:
        return
    record = {"benchmark": name, "conditions": dict(flags), "results": dict(results)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, default=lambda value: value.to_json()) + "\n", encoding="utf-8")
