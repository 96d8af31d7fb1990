"""Sections that several GPU scripts share: each yields the rows of its table as it finds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks import measure
from benchmarks.gpu_setting import Bench, Shape, release, set_precision
from search_spaces.records import Trial
from trainables.training.engine import Engine

GIB = 2**30
ALLOWED_GIB = 8  # what the out-of-memory check may fill
Rows = Iterator[dict[str, Any]]


def label(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1] or 'lengths like CoLA'}"


def milliseconds(seconds: list[float]) -> measure.Spread:
    return measure.Spread.of([1e3 * s for s in seconds])


def memory_per_trial(bench: Bench, points: list[dict[str, Any]]) -> Rows:
    """The slope between the last two rows of a curve over K, on a device."""
    a, b = points[-2:]
    per_trial = (b["peak GiB"] - a["peak GiB"]) / (b["K"] - a["K"])
    total = torch.cuda.get_device_properties(bench.device).total_memory / GIB
    yield {"what": f"MiB per further trial, {b['shape']}, from K={a['K']} to {b['K']}", "value": 1024 * per_trial}
    yield {"what": "K that this slope would let fit", "value": b["K"] + int((total - b["peak GiB"]) / per_trial)}


def out_of_memory(bench: Bench, shape: Shape) -> Rows:
    """What a device with little memory does to the residents."""
    total = torch.cuda.get_device_properties(bench.device).total_memory / GIB
    torch.cuda.set_per_process_memory_fraction(ALLOWED_GIB / total)
    try:
        yield from _fill(bench, shape)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _fill(bench: Bench, shape: Shape) -> Rows:
    """Trials join, one a step, until memory ends; then the younger half leaves."""
    fused, data, states = bench.fused(0, shape), bench.data(shape), []
    try:
        for trial in bench.trials(64, shape):
            states.append(fused.engine.add_trial(trial, data))
            fused.step()
        yield {"what": f"residents in {ALLOWED_GIB} GiB", "value": f"more than {len(states)}"}
        return
    except torch.cuda.OutOfMemoryError:
        pass
    yield {"what": f"residents when {ALLOWED_GIB} GiB were full", "value": len(fused.engine.residents)}
    steps = [state.step for state in states]
    before = list(range(steps[0], steps[0] - len(states), -1))
    yield {"what": "step counters are those before the failed step", "value": steps == before}
    for state in states[len(states) // 2 :]:
        fused.engine.remove_trial(state.trial.id)
    release()
    try:
        fused.step()
        yield {"what": "the older half trains on", "value": states[0].step == steps[0] + 1}
    except torch.cuda.OutOfMemoryError:
        yield {"what": "the older half trains on", "value": "out of memory again"}


def equality(bench: Bench) -> Rows:
    """A trial's epoch losses alone twice and beside other trials; fp32 products first, then the precision of this run."""
    shape, K, epochs = bench.scale.shapes[-1], min(16, max(bench.scale.residents)), 3
    data = bench.data(shape, steps=10)
    trials = bench.trials(K, shape, epochs=epochs)

    def losses(trials_together: list[Trial], precision: str) -> list[float]:
        engine = Engine(replace(bench, precision=precision).backbone())
        state = [engine.add_trial(trial, data) for trial in trials_together][trials_together.index(trials[0])]
        while state.epoch < epochs:
            engine.step()
        return [p.loss if p.loss is not None else float("nan") for p in state.progress]

    for precision, pinned in (("fp32", False), ("fp32", True), (bench.precision, False)):
        set_precision(precision)
        torch.use_deterministic_algorithms(pinned, warn_only=True)
        one, two, among = (losses(c, precision) for c in (trials[:1], trials[:1], [*trials[1:], trials[0]]))
        spread = max(abs(a - b) for a, b in zip(one, two, strict=True))
        fused = max(abs(a - b) for a, b in zip(one, among, strict=True))
        yield {
            "precision": precision,
            "deterministic algorithms": pinned,
            "steps": 10 * epochs,
            "two lone runs, max |d loss|": f"{spread:.2e}",
            f"lone and among {K}, max |d loss|": f"{fused:.2e}",
            "equal or within the lone spread": fused <= spread,
        }
    torch.use_deterministic_algorithms(False)
    set_precision(bench.precision)


def joining(bench: Bench) -> Rows:
    """How long K residents wait while one more trial joins and one leaves."""
    shape = bench.scale.shapes[0]
    data = bench.data(shape)
    for K in [k for k in bench.scale.residents if k > 1][-4:]:
        fused, extra = bench.fused(K, shape), bench.trials(bench.scale.rounds, shape, first_seed=1000)
        step = measure.Spread.of(bench.timed(step=measure.Arm(step=fused.step))["step"])
        joins, leaves, lost = [], [], []
        for trial in extra:
            a = bench.clock()
            fused.engine.add_trial(trial, data)
            b = bench.clock()
            fused.step()
            c = bench.clock()
            fused.engine.remove_trial(trial.id)
            d = bench.clock()
            fused.step()
            joins.append(b - a)
            leaves.append(d - c)
            lost.append((c - a) / step.median - 1)
        yield {
            "K": K,
            "step ms": 1e3 * step.median,
            "join ms": milliseconds(joins),
            "leave ms": milliseconds(leaves),
            "steps lost by residents per join": measure.Spread.of(lost),
        }
        release()
