"""The adapters of K trials: one batched product against a Python loop over the trials.

    python -m benchmarks.adapter_product [--rounds 15] [--json FILE]

C4: forward and backward of one site, K = 16 and 64, by the method's own formula in both arms; the loop has one parameter
tensor per trial and splits the rows once. CPU time, one thread. Two shapes: the tiny encoder of C2, where calls cost more
than arithmetic, and BERT-base's width with a CoLA-like row, where arithmetic costs more than calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from trainables.methods.adapter import Adapter
from trainables.methods.context import Values

RESIDENTS = (16, 64)
SHAPES = {"T=96 D=32 R=8": (96, 32, 8), "T=88 D=768 R=32": (88, 768, 32)}


def arms(K: int, T: int, D: int, R: int) -> dict[str, Callable[[], object]]:
    """Both arms on the same numbers; K trials, T tokens each, D wide, bottleneck R."""
    adapter = Adapter(r=R)
    torch.manual_seed(0)
    h = torch.randn(K, T, D, requires_grad=True)
    shapes = {"down": (K, D, R), "down_bias": (K, 1, R), "up": (K, R, D), "up_bias": (K, 1, D)}
    stacked = {name: (torch.randn(shape) * 0.01).requires_grad_() for name, shape in shapes.items()}
    apart = [{name: p[k : k + 1].detach().requires_grad_() for name, p in stacked.items()} for k in range(K)]
    gradient = torch.randn(K, T, D)

    def batched() -> Tensor:
        out = adapter.transform(h, Values(stacked), None)
        torch.autograd.grad(out, [h, *stacked.values()], gradient)
        return out

    def looped() -> Tensor:
        out = torch.cat([adapter.transform(rows, Values(p), None) for rows, p in zip(h.split(1), apart, strict=True)])
        torch.autograd.grad(out, [h, *(p for each in apart for p in each.values())], gradient)
        return out

    torch.testing.assert_close(batched(), looped())
    return {"loop": looped, "batched": batched}


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions(
        attention="none", padding="none", optimiser="none", dropout="none", clip="none", clock="process time"
    )
    measure.print_conditions(flags)
    results: dict[str, Any] = {}
    rows = []
    for shape, (T, D, R) in SHAPES.items():
        for K in RESIDENTS:
            repeats = max(1, 8 * RESIDENTS[0] * 32 // (K * D))
            both = {n: measure.Arm(step=step, units=K, repeats=repeats) for n, step in arms(K, T, D, R).items()}
            seconds = measure.interleaved(both, arguments.rounds, warm_up=2)
            faster = measure.ratio(seconds["loop"], seconds["batched"])
            micro = {name: measure.Spread.of([1e6 * s for s in each]) for name, each in seconds.items()}
            results[f"{shape} K={K}"] = {"us_per_trial": micro, "times_faster_than_loop": faster}
            rows.append([shape, K, micro["loop"], micro["batched"], faster])
    measure.print_table(["shape", "K", "loop, CPU us per trial", "batched, CPU us per trial", "faster, times"], rows)
    measure.write(arguments.json, "adapter_product", flags, results)


if __name__ == "__main__":
    main()
