"""What `benchmarks.gpu_ab` measures of captured steps: each yields rows as it finds them. On a CPU nothing is captured."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_learning, measure
from benchmarks.arms import Encoder, make_data, make_trials, small_settings
from benchmarks.gpu_sections import GIB, label, milliseconds
from benchmarks.gpu_setting import Bench, Shape, release, set_precision
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.training.captured_steps import SEEN_BEFORE, Call, CapturedSteps
from trainables.training.engine import Engine
from trainables.training.trial_state import TrialState

Rows = Iterator[dict[str, Any]]


class NoGraphs:
    """For a CPU: padded steps and filled inputs as on a device, but each step is run instead of replayed."""

    def __call__(self, step: Call) -> Call:
        return step

    def free_memory(self) -> float:
        return math.inf

    def give_back(self) -> None:
        pass


def captured_steps(bench: Bench) -> CapturedSteps:
    return CapturedSteps() if bench.cuda else CapturedSteps(NoGraphs)


def engine_of(
    bench: Bench, trials: list[Trial], data: TaskData, captured: CapturedSteps | None = None
) -> tuple[Engine, list[TrialState]]:
    engine = Engine(bench.backbone(), captured)
    return engine, [engine.add_trial(trial, data) for trial in trials]


def losses(backbone: Backbone, trials: list[Trial], data: TaskData, captured: CapturedSteps | None) -> list[float]:
    """The loss of each epoch of each trial, trained together to their last epochs."""
    engine = Engine(backbone, captured)
    states = [engine.add_trial(trial, data) for trial in trials]
    while not all(state.epoch == state.trial.recipe.epochs for state in states):
        engine.step()
    return [p.loss if p.loss is not None else math.nan for state in states for p in state.progress]


def largest_gap(one: list[float], two: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, two, strict=True))


def reserved(bench: Bench) -> float:
    release()
    return torch.cuda.memory_reserved() / GIB if bench.cuda else 0.0


def a1_curve(bench: Bench) -> Rows:
    """Eager against captured, in turns, on real mini-batches: milliseconds per step, the host's share, memory."""
    for shape in bench.scale.shapes[::-1]:
        data = bench.data(shape)
        for K in bench.scale.residents:
            yield pair(bench, K, shape, data)
            release()


def pair(bench: Bench, K: int, shape: Shape, data: TaskData) -> dict[str, Any]:
    captured, trials = captured_steps(bench), bench.trials(K, shape)
    before = reserved(bench)
    replayed, _ = engine_of(bench, trials, data, captured)
    warm_up = 24 if K < 16 else 12
    start = bench.clock()
    for _ in range(warm_up if bench.cuda else 4):
        replayed.step()
    warm = bench.clock() - start
    held = reserved(bench) - before
    eager, _ = engine_of(bench, trials, data)
    lone = bench.lone(shape)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    at_rest = torch.cuda.memory_allocated() if bench.cuda else 0
    for _ in range(3):
        eager.step()
    peak = (torch.cuda.max_memory_allocated() - at_rest) / GIB if bench.cuda else 0.0
    repeats, replays = (4 if bench.cuda else 1), captured.replays
    found = bench.timed(
        lone=measure.Arm(step=lone.step),
        eager=measure.Arm(step=eager.step, repeats=repeats),
        captured=measure.Arm(step=replayed.step, repeats=repeats),
    )
    steps = bench.scale.rounds * repeats + 3
    first = bench.clock()
    for _ in range(repeats):
        replayed.step()
    queued = (time.perf_counter() - first) / repeats
    bench.clock()
    return {
        "shape": label(shape),
        "K": K,
        "lone eager ms": milliseconds(found["lone"]),
        "eager ms": milliseconds(found["eager"]),
        "captured ms": milliseconds(found["captured"]),
        "captured, ms of the host": 1e3 * queued,
        "captured faster than eager": measure.ratio(found["eager"], found["captured"]),
        "captured, trials faster than lone": measure.ratio([K * s for s in found["lone"]], found["captured"]),
        "captured per trial-step, ms": 1e3 * measure.Spread.of(found["captured"]).median / K,
        "replayed": f"{captured.replays - replays - repeats} of {steps}" if bench.cuda else "none: a CPU",
        "graphs": captured.captures,
        "warm-up s": warm,
        "refused": captured.refused or "no",
        "GiB beyond weights, eager step": peak,
        "GiB that the captured engine holds": held,
    }


def a3_learning(bench: Bench, folder: Path | None) -> Rows:
    """Test scores of four methods on a real task with the small real encoder, on the device and as the CPU gave them before."""
    if folder is None:
        yield {"device": "not measured: no folder was given"}
        return
    model, data = gpu_learning.read(folder)
    for precision, replays in (("fp32", False), ("bf16", False), ("bf16", True)) if bench.cuda else (("fp32", True),):
        set_precision(precision)
        start = time.monotonic()
        methods = tuple(m for m in gpu_learning.METHOD_TRIALS if not replays or METHODS[m].shares_backbone)
        made: list[CapturedSteps] = []

        def engines(replays: bool = replays, made: list[CapturedSteps] = made) -> CapturedSteps | None:
            made.extend([captured_steps(bench)] if replays else [])
            return made[-1] if replays else None

        few = {} if bench.cuda else {"seeds": (1,), "recipe": replace(gpu_learning.RECIPE, epochs=1)}
        scores = gpu_learning.final_scores(model, data, bench.device, precision, engines, methods, **few)
        steps = "captured" if replays else "eager"
        for method, found in scores.items():
            yield {
                "device": bench.device.type,
                "precision": precision,
                "steps": steps,
                **gpu_learning.row_of(method, found),
            }
        yield {
            "device": bench.device.type,
            "precision": precision,
            "steps": steps,
            "s": time.monotonic() - start,
            "replayed": sum(c.replays for c in made),
        }
    set_precision(bench.precision)


def a4_equality(bench: Bench) -> Rows:
    """Losses of 30 steps and final parameters, eager against captured; ragged mini-batches, four trials together."""
    shape, K, epochs = bench.scale.shapes[-1], 4, 3 if bench.cuda else 1
    data, trials = bench.data(shape, steps=10), bench.trials(K, shape, epochs=epochs)
    for precision in ("fp32", "bf16"):
        set_precision(precision)
        found = []
        for captured in (None, None, captured_steps(bench)):
            engine, states = engine_of(replace(bench, precision=precision), trials, data, captured)
            while not all(state.epoch == epochs for state in states):
                engine.step()
            values = torch.cat([engine.state(trial.id)[1]["values"] for trial in trials])
            found.append(([p.loss or float("nan") for s in states for p in s.progress], values))
            del engine, states
        (one, values), (two, again), (replayed, others) = found
        gaps = (values - others).abs()
        assert captured is not None
        yield {
            "precision": precision,
            "steps": 10 * epochs,
            "replayed": captured.replays,
            "graphs": captured.captures,
            "refused": captured.refused or "no",
            "eager twice, max |d loss|": f"{largest_gap(one, two):.1e}",
            "eager and captured, max |d loss|": f"{largest_gap(one, replayed):.1e}",
            "eager twice, max |d parameter|": f"{(values - again).abs().max():.1e}",
            "eager and captured, max and mean |d parameter|": f"{gaps.max():.1e}, {gaps.mean():.1e}",
            "mean |parameter|": f"{values.abs().mean():.1e}",
        }
    set_precision(bench.precision)


def a5_joining(bench: Bench) -> Rows:
    """What a join or a leave costs the residents, capturing anew included: time of the next steps beyond steady ones."""
    shape = bench.scale.shapes[0]
    data, few = bench.data(shape), 6 if bench.cuda else 3
    for K in (4, 16) if bench.cuda else (2,):
        captured, extra = captured_steps(bench), bench.trials(3, shape, first_seed=1000)
        engine, _ = engine_of(bench, bench.trials(K, shape), data, captured)
        costs: dict[str, list[float]] = {"join": [], "leave": []}
        slowest = []
        for trial in extra:
            for event in ("join", "leave"):
                times = []
                start = bench.clock()
                if event == "join":
                    engine.add_trial(trial, data)
                else:
                    engine.remove_trial(trial.id)
                times.append(bench.clock() - start)
                for _ in range(SEEN_BEFORE + few):
                    start = bench.clock()
                    engine.step()
                    times.append(bench.clock() - start)
                steady = sorted(times[-few + 1 :])[(few - 1) // 2]
                slowest.append(times[SEEN_BEFORE + 1])
                costs[event].append(sum(times) - (SEEN_BEFORE + few) * steady)
        yield {
            "K": K,
            "steady step ms": 1e3 * steady,
            "capturing step ms": milliseconds(slowest),
            "a join costs ms": milliseconds(costs["join"]),
            "a leave costs ms": milliseconds(costs["leave"]),
            "graphs": captured.captures,
            "refused": captured.refused or "no",
        }
        release()


def a6_methods(bench: Bench) -> Rows:
    """Every method, two trials each: is its step captured, and are its losses those of eager steps (fp32, small encoder)?"""
    sizes = (128, 4) if bench.cuda else (16, 2)
    encoder = Encoder(layers=2, width=sizes[0], heads=sizes[1], vocabulary=200)
    data, counts = make_data([5, 9, 12, 7, 6] * (6 if bench.cuda else 2), 200), Counter[str]()
    set_precision("fp32")
    with tempfile.TemporaryDirectory() as folder:
        model = encoder.save(Path(folder))
        for name in METHODS:
            row = one_method(bench, name, lambda: Backbone.load(model, bench.device, "fp32"), data)
            counts[row["steps"].partition(":")[0]] += 1
            yield row
    set_precision(bench.precision)
    yield {"method": "all", **counts}


def one_method(bench: Bench, name: str, load: Any, data: TaskData) -> dict[str, Any]:
    kind, epochs = METHODS[name], 2
    trials = [
        replace(trial, settings=small_settings(name))
        for trial in make_trials(2 if kind.shares_backbone else 1, r=8, batch_size=4, method=name, epochs=epochs)
    ]
    found, captured = [], captured_steps(bench)
    for steps in (None, captured):
        backbone = load()
        try:
            found.append(losses(backbone, trials, data, steps))
        except Exception as error:
            return {"method": name, "steps": f"failed: {type(error).__name__}: {str(error)[:200]}"}
    gap = largest_gap(*found)
    how = f"eager: {captured.refused[:160]}" if captured.refused else "captured"
    return {
        "method": name,
        "steps": how,
        "replayed": captured.replays,
        "max |d loss|": f"{gap:.1e}",
        "near": gap < 1e-3,
    }


def a7_kernels(bench: Bench) -> Rows:
    """The kernels of one captured step with dropout and packing, by their time."""
    shape = bench.scale.shapes[0]
    for K in (16, 64) if bench.cuda else ():
        engine, _ = engine_of(bench, bench.trials(K, shape), bench.data(shape), captured_steps(bench))
        for _ in range(SEEN_BEFORE + 3):
            engine.step()
        bench.clock()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            engine.step()
            bench.clock()
        busy, number = Counter[str](), Counter[str]()
        for e in profile.events():
            if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation:
                busy[e.name[:90]] += e.time_range.elapsed_us() / 1e3
                number[e.name[:90]] += 1
        yield {"K": K, "kernel": "all", "number": number.total(), "ms": busy.total()}
        yield from ({"K": K, "kernel": n, "number": number[n], "ms": t} for n, t in busy.most_common(14))
        del engine
        release()
    if not bench.cuda:
        yield {"kernel": "not measured: no device"}
