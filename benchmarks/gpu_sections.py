"""The measurements G1 to G8: each yields the rows of its table as it finds them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.gpu_setting import Bench, Shape, release, set_precision
from search_spaces.records import Trial
from trainables.training.engine import Engine

ROOT = Path(__file__).parents[1]
GIB = 2**30
ALLOWED_GIB = 8  # what the out-of-memory check may fill
Rows = Iterator[dict[str, Any]]


def label(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1] or 'lengths like CoLA'}"


def milliseconds(seconds: list[float]) -> measure.Spread:
    return measure.Spread.of([1e3 * s for s in seconds])


def kernels(bench: Bench, step: Callable[[], object]) -> tuple[int, float] | None:
    """(kernels and copies, their milliseconds) of one step; None without a device."""
    if not bench.cuda:
        return None
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    # Marks such as "Optimizer.step" appear on the device's time line too, over the kernels they cover.
    found = [
        e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation
    ]
    return len(found), sum(e.time_range.elapsed_us() for e in found) / 1e3


def g1_one_step(bench: Bench) -> Rows:
    """Lone eager step and fused step: time, kernels, share of the time in which the device is busy."""
    shape, K = bench.scale.shapes[0], min(16, max(bench.scale.residents))
    for name, arm, units in (("lone eager", bench.lone(shape), 1), (f"fused K={K}", bench.fused(K, shape), K)):
        step = milliseconds(bench.timed(arm=measure.Arm(step=arm.step, repeats=bench.scale.lone_steps))["arm"])
        row: dict[str, Any] = {"arm": name, "shape": label(shape), "ms per step": step}
        found = kernels(bench, arm.step)
        if found is None:
            yield {**row, "kernels per step": "not measured", "per trial": "not measured", "busy": "not measured"}
        else:
            yield {**row, "kernels per step": found[0], "per trial": found[0] / units, "busy": found[1] / step.median}


def curve(bench: Bench, shape: Shape, residents: tuple[int, ...]) -> Rows:
    """One engine that grows to each K, against the lone loop in the same minute; ends where memory does."""
    lone, fused = bench.lone(shape), bench.fused(0, shape)
    trials, data = bench.trials(max(residents), shape), bench.data(shape)
    for K in residents:
        repeats = max(1, bench.scale.lone_steps // K)
        arms = {"lone": bench.lone_arm(lone), "fused": measure.Arm(step=fused.step, units=K, repeats=repeats)}
        if bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            for trial in trials[len(fused.engine.residents) : K]:
                fused.engine.add_trial(trial, data)
            both = bench.timed(**arms)
        except torch.cuda.OutOfMemoryError:
            yield {"shape": label(shape), "K": K, "lone ms": "out of memory"}
            return
        yield {
            "shape": label(shape),
            "K": K,
            "lone ms": milliseconds(both["lone"]),
            "fused ms per trial-step": milliseconds(both["fused"]),
            "trial-steps/s": 1 / measure.Spread.of(both["fused"]).median,
            "faster than lone, times": measure.ratio(both["lone"], both["fused"]),
            "peak GiB": torch.cuda.max_memory_allocated() / GIB if bench.cuda else "not measured",
        }


def g2_curve(bench: Bench) -> Rows:
    """Trial-steps per second over K. Eager: the engine has no CUDA-graph mode to measure."""
    for shape in bench.scale.shapes:
        yield from curve(bench, shape, bench.scale.residents)
        release()


def g3_baselines(bench: Bench) -> Rows:
    """The best lone run, and P lone processes on one device."""
    shape, K = bench.scale.shapes[0], min(32, max(bench.scale.residents))
    lone, fused = bench.lone(shape), bench.fused(K, shape)
    arms = {"lone": bench.lone_arm(lone), "fused": measure.Arm(step=fused.step, units=K)}
    both = bench.timed(**arms)
    speed = 1 / measure.Spread.of(both["fused"]).median
    yield {"arm": "lone eager", "trial-steps/s": 1 / measure.Spread.of(both["lone"]).median}
    yield {"arm": f"fused K={K}", "trial-steps/s": speed}
    for name, options in bench.scale.compile_with.items():
        try:
            compiled = bench.lone(shape, compile_with=options)
            best = bench.timed(best=bench.lone_arm(compiled), fused=arms["fused"])
        except Exception as error:  # a compiler that fails is a result
            yield {"arm": f"lone, {name}", "trial-steps/s": f"failed: {type(error).__name__}: {str(error)[:120]}"}
            continue
        faster = measure.ratio(best["best"], best["fused"])
        yield {
            "arm": f"lone, {name}",
            "trial-steps/s": 1 / measure.Spread.of(best["best"]).median,
            "fused faster": faster,
        }
    del lone, fused, arms
    torch.compiler.reset()
    release()
    yield from processes(bench, "adapter", speed)


def g4_memory(bench: Bench) -> Rows:
    """Memory per further trial from G2, and what a full device does to the residents."""
    shape = bench.scale.shapes[0]
    points = [row for row in bench.tables.get("G2", []) if row.get("shape") == label(shape) and "peak GiB" in row]
    if not bench.cuda or len(points) < 2:
        yield {"what": "memory per further trial, out of memory", "value": "not measured"}
        return
    yield from memory_per_trial(bench, points)
    yield from out_of_memory(bench, shape)


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


def g5_equality(bench: Bench) -> Rows:
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


def g6_joining(bench: Bench) -> Rows:
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


def g7_long(bench: Bench) -> Rows:
    """Long rows, where arithmetic fills the device: the limit of the idea."""
    yield from curve(bench, bench.scale.long, bench.scale.long_residents)


def g8_full(bench: Bench) -> Rows:
    """Full fine-tuning shares no backbone: an engine of its own, the lone loop, and P processes."""
    shape = bench.scale.shapes[0]
    lone, own = bench.lone(shape, "full"), bench.fused(1, shape, "full")
    both = bench.timed(lone=bench.lone_arm(lone), own=measure.Arm(step=own.step, repeats=bench.scale.lone_steps))
    speed = 1 / measure.Spread.of(both["own"]).median
    yield {"arm": "lone eager, full", "trial-steps/s": 1 / measure.Spread.of(both["lone"]).median}
    yield {
        "arm": "our engine, full, K=1",
        "trial-steps/s": speed,
        "fused faster": measure.ratio(both["lone"], both["own"]),
    }
    del lone, own
    release()
    yield from processes(bench, "full", None)


def processes(bench: Bench, method: str, fused: float | None) -> Rows:
    """Trial-steps per second of P lone eager processes at once."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", method, "--folder", str(bench.model.path)]
    command += ["--precision", bench.precision, *([] if bench.cuda else ["--smoke"])]
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
        arm = f"{P} processes time-sliced, no MPS, {method}"
        if not rates:
            yield {"arm": arm, "trial-steps/s": "failed: a process did not start (out of memory?)"}
            continue
        yield {"arm": arm, "trial-steps/s": sum(rates), **({"fused faster": fused / sum(rates)} if fused else {})}


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


SECTIONS: dict[str, Callable[[Bench], Rows]] = {
    "G1": g1_one_step,
    "G2": g2_curve,
    "G5": g5_equality,
    "G6": g6_joining,
    "G3": g3_baselines,
    "G4": g4_memory,
    "G7": g7_long,
    "G8": g8_full,
}
