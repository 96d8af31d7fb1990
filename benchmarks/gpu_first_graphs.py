"""What `benchmarks.gpu_first` measures of designs that the engine does not have: CUDA graphs, compilers, other kernels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_first_sections import CURVE, SMALL_CURVE, Row, Rows, ms_of
from benchmarks.gpu_setting import Bench, Shape, release
from benchmarks.plain_loop import plain_model
from trainables.backbone.packing import Rows as Packed
from trainables.backbone.packing import pack
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.training.forward_pass import ForwardPass
from trainables.training.losses import losses_of
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StepHyperparameters
from trainables.training.stacked_trials import dropout_of

Call = Callable[[], object]


def s5_graphs(bench: Bench) -> Rows:
    """What CUDA graphs would gain: our step and a lone one over a fixed batch, eager and captured; ours without its host part."""
    shape = bench.scale.shapes[0]
    for K in CURVE if bench.cuda else SMALL_CURVE:
        body, draw, packing = fixed_step(bench, K, shape)
        row: Row = {"arm": f"ours K={K}", "eager ms": ms_of(bench, body, 5)[0]}
        row |= {"dropout ms": ms_of(bench, draw, 5)[0], "packing ms": ms_of(bench, packing, 5)[0]}
        yield row | captured_row(bench, body, K)
        del body, draw, packing
        release()
    lone = lone_body(bench, shape)
    yield {"arm": "lone, no padding mask", "eager ms": ms_of(bench, lone, 5)[0], **captured_row(bench, lone, 1)}


def captured_row(bench: Bench, body: Call, K: int) -> Row:
    """The time of `body` as a CUDA graph, or why there is none."""
    if not bench.cuda:
        return {"captured ms": "not measured"}
    try:
        ms = ms_of(bench, captured(body), 5)[0]
    except Exception as error:  # what cannot be captured is a result
        return {"captured ms": f"failed: {type(error).__name__}: {str(error)[:150]}"}
    return {"captured ms": ms, "captured ms per trial-step": ms / K}


def captured(body: Call) -> Call:
    """`body` as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


def fixed_step(bench: Bench, K: int, shape: Shape) -> tuple[Call, Call, Call]:
    """(a step over one fixed batch, without what the host does; drawing its dropout; packing its rows)."""
    engine = bench.fused(K, shape).engine
    (stack, _), backbone = engine.find(engine.residents[0]), engine.backbone
    states = stack.states
    batches = [state.batch() for state in states]

    def packing() -> Packed:
        return pack(batches, backbone.shape.heads, backbone.device)

    rows = packing()

    def draw() -> Any:
        return dropout_of(states, [0] * K, rows, backbone)

    masks, lr = draw(), torch.full((K, 1), 1e-4, device=backbone.device)
    one = torch.ones_like(lr)
    hyper = StepHyperparameters(
        lr=lr, lr_scale=one, step=one, total_steps=100 * one, weight_decay=0.01 * one, max_grad_norm=one, noise_seed=0
    )

    def body() -> None:
        segment = Segment(stack.parameters, 0, K)
        logits = ForwardPass(backbone, [segment], rows, masks).logits()[0]
        losses_of(logits, rows, segment, CLASSIFICATION).sum().backward()
        stack.parameters.finish_backward()
        stack.parameters.step(hyper)

    return body, draw, packing


def lone_body(bench: Bench, shape: Shape) -> Call:
    """The fastest lone step that one would write by hand: a fixed batch without a mask, AdamW fused and capturable."""
    trial = bench.trials(1, shape)[0]
    network: Any = plain_model(bench.model, trial, 2).to(bench.device).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    lr = torch.tensor(1e-4, device=bench.device)
    optimiser = torch.optim.AdamW(trained, lr, fused=True, capturable=bench.cuda)
    ids = torch.randint(5, bench.scale.encoder.vocabulary, (shape[0], shape[1] or 16), device=bench.device)
    labels = torch.randint(0, 2, (shape[0],), device=bench.device)

    def body() -> None:
        optimiser.zero_grad(set_to_none=True)
        narrow = bench.precision == "bf16"
        # A cache of narrowed weights would outlive the capture of a graph.
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=narrow, cache_enabled=False):
            logits = network(input_ids=ids).logits
        F.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimiser.step()

    return body


def s7_compiled(bench: Bench) -> Rows:
    """The lone loop compiled, with CUDA graphs (on a CPU: traced, not compiled)."""
    options = {"mode": "reduce-overhead"} if bench.cuda else {"backend": "eager"}
    start = time.monotonic()
    lone = bench.lone(bench.scale.shapes[0], compile_with=options)
    ms, queued = ms_of(bench, lone.step)
    took = time.monotonic() - start
    yield {"arm": f"lone compiled {options}", "ms": ms, "ms of the host": queued, "s with compiling": took}
    torch.compiler.reset()


def s8_attention(bench: Bench) -> Rows:
    """Attention with dropout, forward and backward, as ours is (dropout drawn before) and in one kernel; 4,096 tokens."""
    for L in (64, 128, 512) if bench.cuda else (16,):
        explicit, fused = both_attentions(bench.device, 4096 // L if bench.cuda else 2, L)
        ours, kernel = ms_of(bench, explicit)[0], ms_of(bench, fused)[0]
        yield {"L": L, "as ours, ms": ours, "one kernel, ms": kernel, "times": ours / kernel}


def both_attentions(device: torch.device, B: int, L: int, H: int = 12, w: int = 64) -> tuple[Call, Call]:
    def random() -> Tensor:
        return torch.randn(B * H, L, w, device=device, dtype=torch.bfloat16, requires_grad=True)

    q, k, v = random(), random(), random()
    hide = torch.zeros(B * H, 1, L, device=device, dtype=torch.bfloat16)
    factors = (torch.rand(B * H, L, L, device=device) > 0.1).float() / 0.9

    def explicit() -> None:
        scores = torch.baddbmm(hide, q, k.transpose(1, 2), alpha=w**-0.5)
        ((scores.softmax(-1, dtype=torch.float32) * factors).to(q.dtype) @ v).sum().backward()

    def fused() -> None:
        heads = [x.view(B, H, L, w) for x in (q, k, v)]
        F.scaled_dot_product_attention(*heads, dropout_p=0.1).sum().backward()

    return explicit, fused
