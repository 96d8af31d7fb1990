"""What `benchmarks.gpu_first` measures of the machine and of the engine as it is: each yields rows as it finds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.arms import Encoder, make_data, make_trials, small_settings
from benchmarks.gpu_lone import processes
from benchmarks.gpu_sections import label, memory_per_trial, out_of_memory
from benchmarks.gpu_setting import Bench, release, set_precision
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.training.engine import Engine
from trainables.training.trial_state import TrialState

CURVE = (1, 4, 16, 64)
SMALL_CURVE = (1, 2)  # on a CPU
Row = dict[str, Any]
Rows = Iterator[Row]


def ms_of(bench: Bench, step: Callable[[], object], repeats: int = 10, warm_up: int = 3) -> tuple[float, float]:
    """(milliseconds per call, milliseconds until the host has queued its work): medians of three."""
    for _ in range(warm_up):
        step()
    whole, queued = [], []
    for _ in range(3):
        start = bench.clock()
        for _ in range(repeats):
            step()
        queued.append(time.perf_counter() - start)
        whole.append(bench.clock() - start)
    return 1e3 * sorted(whole)[1] / repeats, 1e3 * sorted(queued)[1] / repeats


def s0_machine(bench: Bench) -> Rows:
    """What this device reaches at best: memory bandwidth, matrix products, one launch, one copy."""
    device, (inner, outer) = bench.device, (768, 3072) if bench.cuda else (16, 64)
    big = torch.randn(1 << (28 if bench.cuda else 18), device=device)
    out = torch.empty_like(big)
    ms, _ = ms_of(bench, lambda: out.copy_(big))
    yield {"what": "copy on the device", "TB/s": 2 * big.nbytes / ms / 1e9}
    kinds = (("bf16", torch.bfloat16), ("tf32", torch.float32), ("fp32", torch.float32))
    for name, dtype in kinds:
        set_precision(name)
        for rows in (512, 8192, 32768) if bench.cuda else (8,):
            a = torch.randn(rows, inner, device=device, dtype=dtype)
            b = torch.randn(inner, outer, device=device, dtype=dtype)
            ms, _ = ms_of(bench, lambda a=a, b=b: a @ b, 50)
            row = f"product {rows} x {inner} x {outer}, {name}"
            yield {"what": row, "TFLOP/s": 2 * rows * inner * outer / ms / 1e9}
    set_precision(bench.precision)
    small = torch.zeros(8, device=device)
    ms, queued = ms_of(bench, lambda: small.add_(1), 1000)
    yield {"what": "one small operator", "us": 1e3 * ms, "us of the host": 1e3 * queued}
    host = torch.zeros(1 << 20)
    for name, source in (("pageable", host), ("pinned", host.pin_memory() if bench.cuda else host)):
        ms, queued = ms_of(bench, lambda source=source: source.to(device, non_blocking=True), 20)
        yield {"what": f"4 MiB to the device, {name} memory", "us": 1e3 * ms, "us of the host": 1e3 * queued}
    ms, _ = ms_of(bench, lambda: torch.tensor([1.0, 2.0], device=device), 100)
    yield {"what": "torch.tensor([...], device=...)", "us": 1e3 * ms}


def s1_methods(bench: Bench) -> Rows:
    """Every method trains on the device, together in one engine; how far its losses are from those of the CPU."""
    sizes = (128, 4) if bench.cuda else (32, 2)
    encoder, cpu = Encoder(layers=2, width=sizes[0], heads=sizes[1], vocabulary=200), torch.device("cpu")
    data, losses, broken = make_data([5, 9, 12, 7] * 4, 200), {}, 0
    with tempfile.TemporaryDirectory() as folder:
        model = encoder.save(Path(folder))
        for device, precision in dict.fromkeys([(cpu, "fp32"), (bench.device, "fp32"), (bench.device, "bf16")]):
            set_precision(precision)
            found, failed = train_each(lambda d=device, p=precision: Backbone.load(model, d, p), data)
            losses[device.type, precision] = found
            broken += len(failed)
            yield {"device": device.type, "precision": precision, "trained": len(found), "failed": str(failed)}
    first = losses[cpu.type, "fp32"]
    for (device_type, precision), found in losses.items():
        gaps = {n: abs(loss - first[n]) for n, loss in found.items() if n in first}
        worst = max(gaps, key=lambda n: gaps[n], default="")
        gap = f"{gaps[worst]:.1e} ({worst})" if gaps else "not measured"
        yield {"device": device_type, "precision": precision, "largest |d loss| from the CPU, dropout differs": gap}
    set_precision(bench.precision)
    if broken:
        raise RuntimeError(f"{broken} methods or engines failed, see the rows above")


def train_each(load: Callable[[], Backbone], data: TaskData) -> tuple[dict[str, float], dict[str, str]]:
    """(last training loss, what failed) by name: two epochs of all that share a backbone, and of each other one alone."""
    shared = Engine(load())
    engines, states, failed = [shared], {}, {}
    for seed, (name, kind) in enumerate(METHODS.items()):
        trial = make_trials(1, r=8, batch_size=4, method=name, first_seed=seed, epochs=2)[0]
        try:
            engine = shared if kind.shares_backbone else Engine(load())
            states[name] = engine.add_trial(replace(trial, settings=small_settings(name)), data)
            engines += [] if engine is shared else [engine]
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error)[:80]}"
    for engine in engines:
        try:
            for _ in range(8):  # two epochs
                engine.step()
            for trial_id in engine.residents:
                engine.test(trial_id)
                engine.state(trial_id)
        except Exception as error:
            traceback.print_exc()
            failed[f"engine of {_names(engine, states)}"] = f"{type(error).__name__}: {str(error)[:200]}"
    ended = {name: state.progress[-1].loss for name, state in states.items() if state.progress}
    return {name: loss for name, loss in ended.items() if loss is not None}, failed


def _names(engine: Engine, states: dict[str, TrialState]) -> str:
    here = [name for name, state in states.items() if state.trial.id in engine.residents]
    return here[0] if len(here) == 1 else f"{len(here)} trials"


def s2_waits(bench: Bench) -> Rows:
    """Where a step makes the host wait for the device, as torch's own check sees it."""
    if not bench.cuda:
        yield {"where": "not measured", "waits": "not measured"}
        return
    fused = bench.fused(4, bench.scale.shapes[0])
    fused.step()
    try:
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fused.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught)
    yield from ({"where": where, "waits": number} for where, number in places.most_common())
    yield {"where": "all", "waits": len(caught)}


def s3_curve(bench: Bench) -> Rows:
    """Milliseconds per trial-step over K in each precision, with the host's share, beside the lone eager loop."""
    shapes = [(bench.scale.shapes[0], p) for p in ("bf16", "tf32", "fp32")] + [(bench.scale.shapes[-1], "bf16")]
    for shape, precision in shapes:
        set_precision(precision)
        same = {"shape": label(shape), "precision": precision}
        with_it = replace(bench, precision=precision)
        lone = with_it.lone(shape)
        alone, queued = ms_of(bench, lone.step)
        yield {**same, "arm": "lone eager", "ms": alone, "ms of the host": queued}
        del lone
        curve = CURVE if bench.cuda else SMALL_CURVE
        fused, data, trials = with_it.fused(0, shape), bench.data(shape), bench.trials(max(curve), shape)
        for K in curve:
            if bench.cuda:
                torch.cuda.reset_peak_memory_stats()
            for trial in trials[len(fused.engine.residents) : K]:
                fused.engine.add_trial(trial, data)
            ms, queued = ms_of(bench, fused.step, max(2, 16 // K))
            yield {
                **same,
                "arm": "fused",
                "K": K,
                "ms": ms,
                "ms of the host": queued,
                "ms per trial-step": ms / K,
                "faster than lone eager": alone * K / ms,
                "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if bench.cuda else "not measured",
            }
        del fused
        release()
    set_precision(bench.precision)


def s4_kernels(bench: Bench) -> Rows:
    """The kernels of one step by their time, for one trial and for many."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    where = torch.autograd.DeviceType.CUDA if bench.cuda else torch.autograd.DeviceType.CPU
    for K in (1, 64) if bench.cuda else (1,):
        fused = bench.fused(K, bench.scale.shapes[0])
        ms, _ = ms_of(bench, fused.step, 3)
        with torch.profiler.profile(activities=activities if bench.cuda else activities[:1]) as profile:
            fused.step()
            bench.clock()
        busy, number = Counter[str](), Counter[str]()
        # Marks such as "Optimizer.step" appear on the device's time line too, over the kernels they cover.
        for e in profile.events():
            if e.device_type == where and not e.is_user_annotation:
                busy[e.name[:90]] += e.time_range.elapsed_us() / 1e3
                number[e.name[:90]] += 1
        yield {"K": K, "kernel": "all", "number": number.total(), "ms": busy.total(), "of a step of ms": ms}
        yield from ({"K": K, "kernel": n, "number": number[n], "ms": t} for n, t in busy.most_common(22))
        del fused
        release()


def s6_processes(bench: Bench) -> Rows:
    """Sixteen lone eager processes on the device: time-sliced by the driver, then under MPS."""
    few = replace(bench, scale=replace(bench.scale, processes=(16,) if bench.cuda else (2,)))
    yield from processes(few, "adapter")
    control = shutil.which("nvidia-cuda-mps-control")
    if not bench.cuda or control is None:
        reason = "no nvidia-cuda-mps-control" if bench.cuda else "no device"
        yield {"arm": "processes under MPS, adapter", "trial-steps/s": f"not measured: {reason}"}
        return
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(own)
        try:
            subprocess.run([control, "-d"], check=True, timeout=30)
            yield from ({**row, "arm": "16 processes under MPS, adapter"} for row in processes(few, "adapter"))
        finally:
            subprocess.run([control], input="quit\n", text=True, check=False, timeout=60)
            for name in own:
                os.environ.pop(name, None)


def s9_long(bench: Bench) -> Rows:
    """Long rows, 8 x 512 on a device, where attention takes most of the time and memory."""
    shape = bench.scale.long
    lone = bench.lone(shape)
    alone, _ = ms_of(bench, lone.step, 3)
    yield {"arm": "lone eager", "shape": label(shape), "ms": alone}
    del lone
    for K in (1, 4) if bench.cuda else (1,):
        fused = bench.fused(K, shape)
        ms, _ = ms_of(bench, fused.step, 2, 2)
        yield {"arm": f"fused K={K}", "shape": label(shape), "ms": ms, "faster than lone eager": alone * K / ms}
        del fused
        release()


def s10_memory(bench: Bench) -> Rows:
    """Memory per further trial from the bf16 rows of S3, and what full memory does to the residents."""
    if not bench.cuda:
        yield {"what": "memory per further trial, out of memory", "value": "not measured"}
        return
    shape = bench.scale.shapes[0]
    same = {"shape": label(shape), "precision": bench.precision}
    points = [row for row in bench.tables.get("S3", []) if "K" in row and same.items() <= row.items()]
    if len(points) < 2:
        yield {"what": "memory per further trial", "value": "not measured: needs S3"}
    else:
        yield from memory_per_trial(bench, points)
    yield from out_of_memory(bench, shape)
