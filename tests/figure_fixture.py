"""Sweeps of any size with plausible curves, made in memory: what figures are drawn from, without a store."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from report_fixture import FakeTrial, end, final, manifest, place

from reports import histories
from reports.manifest import parse
from reports.store import Sweep
from reports.trials import trial_table
from search_spaces import keys
from search_spaces.records import Ablation

FAMILIES = {
    "full": ["full"],
    "freezing": ["linear_probe", "top_layers", "bitfit_norms", "surgical"],
    "adapter": ["adapter", "pfeiffer", "madapter", "compacter", "parallel_adapter", "sparse_adapter", "adapter_drop"],
    "low rank": ["lora", "dora", "vera", "adalora", "lora_fa", "rslora", "pissa"],
    "scaling and bias": ["bitfit", "ia3", "ln_tuning", "ssf"],
    "prompt": ["prompt_tuning", "prefix_tuning", "p_tuning"],
    "mask": ["diff_pruning", "fish_mask", "child_tuning"],
    "combination": ["unipelt", "mam_adapter", "lora_plus_adapter"],
}
METHODS = [(name, family) for family, names in FAMILIES.items() for name in names]
# Trained parameters of the small encoder, by the family's usual size.
_SIZES = {
    "full": 2.2e7,
    "freezing": 6e5,
    "adapter": 4e5,
    "low rank": 1.5e5,
    "scaling and bias": 3e4,
    "prompt": 6e4,
    "mask": 1.2e5,
    "combination": 5e5,
}
LR = [1e-5, 5e-5, 1e-4, 5e-4]


def made_up(
    num_methods: int,
    tasks: tuple[str, ...] = ("mrpc", "stsb", "cola", "rte"),
    trials: int = 12,
    seeds: int = 3,
    spread: float = 0.5,
    seed: int = 0,
    epochs: int = 12,
) -> tuple[dict[str, Any], list[FakeTrial], dict[str, str]]:
    """Manifest, trials and winners of one model, that many methods (every family in turn) and these tasks."""
    chosen = _spread_over_families(num_methods)
    record = manifest(["minilm"], tasks, [])
    record["methods"] = {name: _facts(name, family) for name, family in chosen}
    record["budget"] = {"trials": trials, "final_seeds": seeds}
    draw = np.random.default_rng(seed)
    found: list[FakeTrial] = []
    winners = {}
    for task in tasks:
        for name, family in chosen:
            cell = f"minilm/{task}/{name}"
            size = int(_SIZES[family] * 10 ** draw.normal(0, 0.25)) if family != "full" else 22_713_986
            level = 80 + 2.2 * math.log10(size / 1e4) + draw.normal(0, 0.8)
            rows = _trials(cell, level, size, trials, epochs, draw)
            winners[cell] = max(rows, key=lambda trial: max(trial.scores)).name
            found += rows
            for number in range(seeds):
                score = round(level - 1 + draw.normal(0, spread), 2)
                curve = _curve(level, epochs, draw)
                found.append(final(cell, 100 + number, score, counts=(size, size, size), scores=curve))
    return record, found, winners


def _facts(name: str, family: str) -> dict[str, Any]:
    searched = {"lr": {"choice": LR}, "batch_size": {"choice": [8, 16]}}
    title = name.replace("_", " ").capitalize()
    return {"name": name, "title": title, "family": family, "paper": "", "fixed": {}, "searched": searched}


def _spread_over_families(number: int) -> list[tuple[str, str]]:
    """Methods taken from the families in turn, so that a few methods come from many families."""
    deepest = max(len(names) for names in FAMILIES.values())
    turn = [(names[i], family) for i in range(deepest) for family, names in FAMILIES.items() if i < len(names)]
    return turn[:number]


def _trials(cell: str, level: float, size: int, number: int, epochs: int, draw: Any) -> list[FakeTrial]:
    rows = []
    for position in range(number):
        lr, batch = LR[int(draw.integers(len(LR)))], int(draw.choice([8, 16]))
        reached = level - 3 * abs(math.log10(lr / 2e-4)) - abs(draw.normal(0, 1))
        stopped = position % 3 == 2
        rows.append(
            FakeTrial(
                cell=cell,
                name=f"{cell}-{position}",
                state="STOPPED" if stopped else "DONE",
                params={"lr": lr, "batch_size": batch},
                scores=_curve(reached, 3 if stopped else epochs, draw),
                counts=(size, size, size),
            )
        )
    return rows


def _curve(level: float, epochs: int, draw: Any) -> tuple[float, ...]:
    times = np.arange(1, epochs + 1)
    return tuple((level - 25 * np.exp(-times / 2.0) + draw.normal(0, 0.3, epochs)).round(2).tolist())


def in_memory(record: dict[str, Any], trials: list[FakeTrial], winners: dict[str, str]) -> Sweep:
    """The sweep as `reports.store.read` would return it from a store with these trials."""
    facts = parse(record)
    runs = [_run(number, trial) for number, trial in enumerate(trials)]
    spent = {run.info.run_id: (36.0 * len(t.scores), len(t.scores)) for run, t in zip(runs, trials, strict=True)}
    epochs = [
        (run.info.run_id, epoch, score, 36.0)
        for run, trial in zip(runs, trials, strict=True)
        for epoch, score in enumerate(trial.scores, start=1)
    ]
    return Sweep(
        manifest=facts,
        trials=trial_table(facts, runs, spent),
        epochs=pd.DataFrame(epochs, columns=histories.COLUMNS),
        winners=winners,
        predictions={},
        ablations={},
        run_id="run",
        command=facts.command,
        tracking_uri="sqlite:///made/up.db",
    )


def with_maps(sweep: Sweep, label: str, layers: int, seed: int = 0) -> Sweep:
    """The sweep with an ablation for every final of that row: losses that grow with the span, some gains among single layers."""
    draw = np.random.default_rng(seed)
    finals = sweep.trials[(sweep.trials["phase"] == "final") & (sweep.trials["method"] == label)]
    facts = replace(sweep.manifest.methods[label], ablated=True, removable=True)
    manifest_ = replace(sweep.manifest, methods={**sweep.manifest.methods, label: facts})
    return replace(sweep, manifest=manifest_, ablations={run: _ablation(layers, draw) for run in finals["run_id"]})


def _ablation(layers: int, draw: Any) -> Ablation:
    def score(first: int, last: int) -> float:
        return round(80 - 40 * ((last - first + 1) / layers) ** 2 - first / layers + draw.normal(0, 0.6), 2)

    spans = tuple(tuple(score(first, last) for last in range(first, layers)) for first in range(layers))
    return Ablation(whole=round(80 + draw.normal(0, 0.5), 2), spans=spans, seconds=1.5)


def _run(number: int, trial: FakeTrial) -> SimpleNamespace:
    tags = {**place(trial.cell), keys.TRIAL: trial.name, keys.PHASE: trial.phase, keys.STATE: trial.state, **trial.tags}
    params = {name: str(value) for name, value in {**trial.params, "seed": trial.seed}.items()}
    data = SimpleNamespace(tags=tags, metrics={} if trial.state == "RUNNING" else end(trial), params=params)
    return SimpleNamespace(info=SimpleNamespace(run_id=f"run{number:05}", start_time=number), data=data)
