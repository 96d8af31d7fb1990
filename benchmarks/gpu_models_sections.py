"""What `benchmarks.gpu_models` measures: each yields rows as it finds them. On a CPU nothing is captured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import measure
from benchmarks.arms import CPU, Fused, make_data, make_trials, save_random
from benchmarks.gpu_ab_sections import captured_steps, largest_gap, losses
from benchmarks.gpu_sections import GIB, milliseconds
from benchmarks.gpu_setting import Bench, release, set_precision
from benchmarks.peft_rows import Alone
from search_spaces.language import Precision, Recipe
from search_spaces.records import Trial
from tests.fixtures.encoders import CONFIGS
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model
from trainables.training.captured_steps import CapturedSteps

Rows = Iterator[dict[str, Any]]
VOCABULARY = 200
# M1 and M2: methods that act at different places, trained in one engine.
MIXED: Mapping[str, dict[str, Any]] = {
    "lora": {"r": 8, "targets": "all"},
    "adapter": {"r": 8},
    "prefix": {},
    "ia3": {},
    "bitfit": {},
}
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
}
# Llama 3.2's smallest, but for its vocabulary, which takes no part in a step beyond the words of a mini-batch.
BILLION = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
}
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
RANK = 16


def mixed_trials(names: Mapping[str, dict[str, Any]], epochs: int, dropout: float) -> list[Trial]:
    recipe = Recipe(epochs=epochs, patience=epochs, dropout=dropout)
    return [
        replace(make_trials(1, r=8, batch_size=4, method=name, first_seed=i)[0], settings=settings, recipe=recipe)
        for i, (name, settings) in enumerate(names.items())
    ]


class QuantizedToo(CapturedSteps):
    """Captures steps on a quantised backbone as well."""

    quantized = True


def all_captured(bench: Bench) -> CapturedSteps:
    return QuantizedToo() if bench.cuda else captured_steps(bench)


def gap(one: list[float], two: list[float]) -> str:
    return f"{largest_gap(one, two):.1e}"


def m1_families(bench: Bench) -> Rows:
    """Every family, tiny: five methods together, losses of two epochs; device against CPU, captured against eager, bf16."""
    epochs = 2
    data = make_data([5, 9, 12, 7, 6] * (6 if bench.cuda else 2), VOCABULARY)
    names = CONFIGS if bench.cuda else {name: CONFIGS[name] for name in ("bert", "llama")}
    for family, changes in names.items():
        changes = {"vocab_size": VOCABULARY, "max_position_embeddings": 140, "initializer_range": 0.2, **changes}
        config = transformers.AutoConfig.for_model(family, **changes)
        still, dropped = mixed_trials(MIXED, epochs, 0.0), mixed_trials(MIXED, epochs, 0.1)
        with tempfile.TemporaryDirectory() as folder:
            model = save_random(config, Path(folder), family)
            set_precision("fp32")
            row = {"family": family}
            try:
                cpu = losses(Backbone.load(model, CPU), still, data, None)
                device = losses(Backbone.load(model, bench.device), still, data, None)
                eager = losses(Backbone.load(model, bench.device), dropped, data, None)
                captured = captured_steps(bench)
                replayed = losses(Backbone.load(model, bench.device), dropped, data, captured)
                set_precision("bf16")
                half = captured_steps(bench)
                narrow = losses(Backbone.load(model, bench.device, "bf16"), still, data, half)
            except Exception as error:
                yield {**row, "steps": f"failed: {type(error).__name__}: {str(error)[:200]}"}
                continue
            yield {
                **row,
                "device and CPU, max |d loss|": gap(cpu, device),
                "eager and captured, max |d loss|": gap(eager, replayed),
                "bf16 and fp32, max |d loss|": gap(device, narrow),
                "replayed": captured.replays,
                "replayed in bf16": half.replays,
                "refused": captured.refused or half.refused or "no",
            }
            release()
    set_precision(bench.precision)


def m2_quantized(bench: Bench) -> Rows:
    """nf4: the stored weights and the losses of two epochs; device against CPU, captured against eager (small Llama and BERT)."""
    data, epochs = make_data([5, 9, 12, 7, 6] * (6 if bench.cuda else 2), VOCABULARY), 2
    trials, dropped = mixed_trials(MIXED, epochs, 0.0), mixed_trials(MIXED, epochs, 0.1)
    wide = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
    set_precision("fp32")
    for family, more in {"bert": {}, "llama": {"num_key_value_heads": 2}}.items():
        config = transformers.AutoConfig.for_model(
            family, vocab_size=VOCABULARY, max_position_embeddings=140, initializer_range=0.1, **wide, **more
        )
        with tempfile.TemporaryDirectory() as folder:
            model = save_random(config, Path(folder), family)

            def load(device: torch.device, precision: Precision = "nf4", model: Model = model) -> Backbone:
                return Backbone.load(model, device, precision)

            here, there = load(CPU), load(bench.device)
            weights = zip(_stored(here), _stored(there), strict=True)
            exact = losses(load(bench.device, "fp32"), trials, data, None)
            cpu, device = losses(here, trials, data, None), losses(there, trials, data, None)
            row = {
                "family": family,
                "bytes of 4-bit weights that differ": sum(int((a != b.cpu()).sum()) for a, b in weights),
                "device and CPU, max |d loss|": gap(cpu, device),
                "nf4 and fp32, max |d loss|": gap(exact, device),
            }
            eager = losses(load(bench.device), dropped, data, None)
            captured = all_captured(bench)
            replayed = losses(load(bench.device), dropped, data, captured)
            yield {
                **row,
                "eager and captured, max |d loss|": gap(eager, replayed),
                "replayed": captured.replays,
                "refused": captured.refused or "no",
            }
    set_precision(bench.precision)


def _stored(backbone: Backbone) -> list[torch.Tensor]:
    tensors = [*backbone.module.parameters(), *backbone.module.buffers()]
    return [t for t in tensors if t.dtype == torch.uint8]


def lora_trials(number: int) -> list[Trial]:
    settings = {"r": RANK, "targets": "all"}
    found = make_trials(number, r=RANK, method="lora")
    return [replace(trial, settings=settings, recipe=replace(trial.recipe, precision="bf16")) for trial in found]


def m3_decoder(bench: Bench) -> Rows:
    """SmolLM2's shape (135 million), LoRA on all maps, bf16: one trial of peft, ours eager and captured, in turns."""
    config = transformers.LlamaConfig(**(SMOLLM2 if bench.cuda else TINY), pad_token_id=0)
    with tempfile.TemporaryDirectory() as folder:
        model = save_random(config, Path(folder), "llama")
        for tokens in (64, 256) if bench.cuda else (8,):
            for K in (1, 4, 16) if bench.cuda else (2,):
                yield compare(bench, model, K, tokens, ("bf16",))
                release()


def m4_billion(bench: Bench) -> Rows:
    """The shape of Llama 3.2 1B, LoRA on all maps, 8 x 128: bf16 and nf4, eager and captured; memory."""
    config = transformers.LlamaConfig(**(BILLION if bench.cuda else TINY), pad_token_id=0)
    with tempfile.TemporaryDirectory() as folder:
        with bench.device:  # drawn on a GPU in seconds instead of minutes
            model = save_random(config, Path(folder), "llama")
        for K in (1, 4, 16) if bench.cuda else (2,):
            yield compare(bench, model, K, 128 if bench.cuda else 8, ("bf16", "nf4") if bench.cuda else ("bf16",))
            release()


def compare(bench: Bench, model: Model, K: int, tokens: int, precisions: tuple[Precision, ...]) -> dict[str, Any]:
    """One size: a row of peft in bf16, and our steps in each precision."""
    warm, repeats = (8, 4) if bench.cuda else (2, 1)
    data = make_data([tokens] * 8 * 150, VOCABULARY)
    trials = lora_trials(K)
    alone = Alone(model, trials[:1], data, bench.device, "all-linear")
    arms, row = {"peft": measure.Arm(step=alone.step, repeats=repeats)}, {"tokens": f"8 x {tokens}", "K": K}
    for precision in precisions:
        for name in ("eager", "captured"):
            release()
            before = torch.cuda.memory_allocated() if bench.cuda else 0
            backbone = Backbone.load(model, bench.device, precision)
            steps = all_captured(bench) if name == "captured" else None
            fused = Fused(backbone, trials, data, steps)
            if bench.cuda:
                torch.cuda.reset_peak_memory_stats()
            for _ in range(warm):
                fused.step()
            key = f"{precision} {name}"
            arms[key] = measure.Arm(step=fused.step, repeats=repeats)
            row[f"{key}: GiB at most"] = (torch.cuda.max_memory_allocated() - before) / GIB if bench.cuda else 0.0
            row[f"{precision}: GiB of the backbone"] = backbone.num_bytes / GIB
            if steps:
                row[f"{key}: refused"] = steps.refused or "no"
    found = bench.timed(**arms)
    row |= {f"{name} ms": milliseconds(seconds) for name, seconds in found.items()}
    peft = [K * s for s in found["peft"]]
    for name in arms:
        if name != "peft":
            row[f"{name}: trials faster than peft"] = measure.ratio(peft, found[name])
    return row
