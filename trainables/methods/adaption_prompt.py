"""AdaptionPrompt, or LLaMA-Adapter (Zhang et al. 2024, ICLR): gated prompts in the attention of the top layers.

    context_h = softmax(q_h K_h^T / sqrt(d_h)) V_h + tanh(g_h) softmax(q_h K'_h^T / sqrt(d_h)) V'_h,    for each head h
    K', V' = key and value maps of the frozen layer, including biases, applied to the trained prompt P [l, D]

The softmax of the prompt is separate from that of the tokens, so that g = 0 is exactly the frozen model. P starts from N(0, 1).
As in the authors' code, g is one number per head, and tanh is applied to it (peft has one number per layer, without tanh). The
authors' model is a decoder with rotary positions; an encoder's keys have none, so neither do those of the prompt. Dropout is
not applied to the attention to the prompt.
Trap: while g is zero, the prompt's gradient is zero; g changes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import normal
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdaptionPrompt(Method):
    """`layers`: number of layers with a prompt, counted from the top; `length`: length l of the prompt."""

    title: ClassVar[str] = "AdaptionPrompt"
    paper: ClassVar[str] = "Zhang et al. 2024"
    family: ClassVar[MethodFamily] = "prompt"
    sites: ClassVar[tuple[Site, ...]] = ("attention.context",)
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 5e-3, 1e-2), "layers": choice(2, 4, 6)}
    example: ClassVar[Mapping[str, Scalar]] = {"layers": 2, "length": 3}
    example_lr: ClassVar[float] = 0.05

    layers: int = 2
    length: int = 10

    def check(self, shape: Shape | None) -> None:
        require_int("layers", self.layers, 1, shape.layers if shape else 1024, "the backbone's layers")
        require_int("length", self.length, 1, shape.positions if shape else 512, "the most tokens of an example")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        if layer < shape.layers - self.layers:
            return {}
        return {
            "prompt": Parameter(shape=(self.length, shape.width), init=normal(1), decayed=False),
            "gate": Parameter(shape=(shape.heads,)),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        number = p.gate.shape[-1]
        width = h.shape[-1] // number

        def heads(x: Tensor) -> Tensor:
            found = x.unflatten(-1, (-1, width)).transpose(1, 2)
            shared = number // found.shape[1]  # queries that share a key head
            return found if shared == 1 else found.repeat_interleave(shared, 1)

        (to_key, key_bias), (to_value, value_bias) = at.frozen("attention.key"), at.frozen("attention.value")
        query, key = heads(at.query), heads(p.prompt @ to_key + key_bias)
        shares = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1)
        prompts = shares @ heads(p.prompt @ to_value + value_bias)
        return h + (p.gate.tanh().transpose(1, 2)[..., None] * prompts).transpose(1, 2).flatten(2)
