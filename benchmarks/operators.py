"""How many ATen operators a training step dispatches: what a GPU has to be told, whatever it then computes.

    python -m benchmarks.operators [--json FILE]

C5: one step of 12 layers with two adapters each, for K = 1, 4, 16 and 64 residents, and of a lone Hugging Face loop with fused
AdamW and clipping, by the same counter. Views are not counted, they launch nothing. The number does not depend on the
hardware, and it must not depend on K. The width of the encoder, 16, does not enter it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import measure
from benchmarks.arms import CPU, Encoder, Fused, Lone, make_data, make_trials
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model

RESIDENTS = (1, 4, 16, 64)
ENCODER = Encoder(layers=12, width=16, heads=2)
LIMIT = 1200


class Operators(TorchDispatchMode):
    """Counts operators by name while it is entered; not those whose result is a view of an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returned)
        if not view and func.overloadpacket._qualified_op_name != "aten::_unsafe_view":
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def count(step: Callable[[], object]) -> int:
    """Operators of one call of `step`, after one that is not counted: optimisers make their state in the first."""
    step()
    with Operators() as operators:
        step()
    return operators.counts.total()


def count_fused(model: Model, residents: int) -> int:
    """Operators of one training step of an engine with so many trials."""
    data = make_data([10] * 32)
    return count(Fused(Backbone.load(model, CPU), make_trials(residents, r=8), data).step)


def count_lone(model: Model) -> int:
    """Operators of one training step of a lone Hugging Face loop, batches made beforehand: ours are made outside torch."""
    lone = Lone(model, make_trials(1, r=8)[0], make_data([10] * 32))
    batches = iter([lone.batch(), lone.batch()])
    return count(lambda: lone.train(next(batches)))


def main() -> None:
    arguments = measure.parser(__doc__).parse_args()
    measure.settle()
    flags = measure.conditions(clock="none: operators are counted")
    measure.print_conditions(flags)
    with tempfile.TemporaryDirectory() as folder:
        model = ENCODER.save(Path(folder))
        lone = count_lone(model)
        fused = {K: count_fused(model, K) for K in RESIDENTS}
    rows = [["lone", lone, float(lone), ""]]
    rows += [[f"K={K}", number, number / K, lone * K / number] for K, number in fused.items()]
    measure.print_table(["arm", "operators per step", "per trial-step", "fewer than lone, times"], rows)
    constant = len(set(fused.values())) == 1
    print(f"{'The same' if constant else 'NOT the same'} for every K; limit {LIMIT}.")
    measure.write(arguments.json, "operators", flags, {"lone": lone, "fused": fused, "constant": constant})


if __name__ == "__main__":
    main()
