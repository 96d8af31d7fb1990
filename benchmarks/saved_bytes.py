"""What autograd keeps from forward to backward: the memory that each trained token costs.

    python -m benchmarks.saved_bytes [--layers 12] [--json FILE]

C10: BERT-base with random weights, 8 x 64 tokens, fp32, dropout 0.1: bytes per token saved by one step, adapters of width 32
against full fine-tuning, in a plain Hugging Face loop and in our engine. A storage counts once. Everything that existed
before the step (parameters, moments) does not count.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.arms import BERT_BASE, CPU, Encoder, Fused, Lone, make_data, make_trials
from trainables.backbone.backbone import Backbone

BATCH, TOKENS = 8, 64


def saved_bytes(step: Callable[[], object]) -> int:
    """Bytes that one call of `step` saves for backward."""
    known = {t.untyped_storage().data_ptr() for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter)}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(saved.values())


def measure_all(encoder: Encoder) -> dict[str, dict[str, float]]:
    """Bytes per token by arm and method."""
    data = make_data([TOKENS] * BATCH * 4, encoder.vocabulary)
    found: dict[str, dict[str, float]] = {"lone": {}, "ours": {}}
    with tempfile.TemporaryDirectory() as folder:
        model = encoder.save(Path(folder))
        for method in ("adapter", "full"):
            trials = make_trials(1, r=32, batch_size=BATCH, method=method)
            for arm in found:
                step = (
                    Lone(model, trials[0], data).step
                    if arm == "lone"
                    else Fused(Backbone.load(model, CPU), trials, data).step
                )
                found[arm][method] = saved_bytes(step) / (BATCH * TOKENS)
    return found


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--layers", type=int, default=BERT_BASE.layers)
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(clock="none: bytes are counted")
    measure.print_conditions(flags)
    sizes = {"layers": arguments.layers, "width": BERT_BASE.width, "heads": BERT_BASE.heads}
    found = measure_all(Encoder(**sizes, vocabulary=BERT_BASE.vocabulary))
    rows = [
        [arm, each["adapter"] / 1e3, each["full"] / 1e3, each["adapter"] / each["full"]] for arm, each in found.items()
    ]
    measure.print_table(["arm", "adapters, kB per token", "full, kB per token", "adapters / full"], rows)
    measure.write(arguments.json, "saved_bytes", flags, {"bytes_per_token": found})


if __name__ == "__main__":
    main()
