"""One dropout stream per trial: the masks of a step depend on the trial's seed and step alone.

One generator fill per trial and step covers every place: the embeddings and two sub-layers per layer, the head, and the
attention probabilities. Sixteen random bits decide an element, so a rate is met to 1/65536.

Legend: K slots, T tokens, D width, E examples of a row, B examples of all rows, L longest example, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.methods.contract import Shape
from trainables.packing import Rows
from trainables.seeds import derive

LANES = 4  # 16-bit numbers in one 64-bit draw


class Masks:
    """The dropout factors of one step: 0 or 1 / (1 - rate), per place."""

    def __init__(
        self, rows: Rows, shape: Shape, seeds: list[tuple[int, int]], hidden: list[float], attention: list[float]
    ):
        """`seeds`: (trial seed, step) per row; `hidden`, `attention`: dropout rates per row."""
        device = rows.input_ids.device
        self._rows, self._shape = rows, shape
        streams = [self._draw(k, *seed) for k, seed in enumerate(seeds)]
        self._hidden_bits = _stack([s[0] for s in streams], dim=1)  # [2 * layers + 1, K, T, D]
        self._head_bits = _stack([s[1] for s in streams], dim=1)  # [2, K, E, D]
        self._attention_bits = [s[2] for s in streams]  # per row [layers, E, H, L, L] of that row
        self._hidden = _Rate(hidden, device)
        self._attention = attention

    def _draw(self, k: int, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, shape = self._rows, self._shape
        places, d = 2 * shape.layers + 1, shape.width
        t, e, n = rows.tokens[k], rows.examples[k], rows.longest[k]
        sizes = (places * t * d, 2 * e * d, shape.layers * e * shape.heads * n * n)
        device = rows.input_ids.device
        generator = torch.Generator(device).manual_seed(derive(seed, "dropout", step))
        draws = torch.empty(-(-sum(sizes) // LANES), dtype=torch.int64, device=device)
        bits = draws.random_(-(2**63), None, generator=generator).view(torch.int16)[: sum(sizes)]
        a, b, c = bits.split(sizes)
        return a.view(places, 1, t, d), b.view(2, 1, e, d), c.view(shape.layers, e, shape.heads, n, n)

    def hidden(self, place: int) -> Tensor | None:
        """Factors [K, T, D] at a place: 0 embeddings, 2 l + 1 attention output and 2 l + 2 feed-forward of layer l."""
        return self._hidden.factors(self._hidden_bits[place])

    def head(self, which: int) -> Tensor | None:
        """Factors [K, E, D] before (0) and after (1) the head's dense layer; BERT's head has the first only."""
        return self._hidden.factors(self._head_bits[which])

    def attention(self, layer: int) -> Tensor | None:
        """Factors [B, H, L, L] of the attention probabilities of a layer."""
        if not any(self._attention):
            return None
        longest = max(self._rows.longest)
        parts = []
        for bits, rate in zip(self._attention_bits, self._attention, strict=True):
            factors = _factors(bits[layer], rate)
            room = longest - bits.shape[-1]
            parts.append(F.pad(factors, (0, room, 0, room)) if room else factors)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Rate:
    """Dropout rates of the rows, as tensors that broadcast over [K, n, D]."""

    def __init__(self, rates: list[float], device: torch.device):
        self.any = any(rates)
        self.threshold = torch.tensor([_threshold(r) for r in rates], dtype=torch.int16, device=device).view(-1, 1, 1)
        self.scale = torch.tensor([1 / (1 - r) for r in rates], device=device).view(-1, 1, 1)

    def factors(self, bits: Tensor) -> Tensor | None:
        return (bits >= self.threshold) * self.scale if self.any else None


def _threshold(rate: float) -> int:
    return round(rate * 65536) - 32768


def _factors(bits: Tensor, rate: float) -> Tensor:
    return (bits >= _threshold(rate)) * (1 / (1 - rate))


def _stack(bits: list[Tensor], dim: int) -> Tensor:
    """Rows of different length side by side; what lies beyond a row's own end is never read by a real token."""
    if len(bits) == 1:
        return bits[0]
    longest = max(b.shape[2] for b in bits)
    return torch.cat([F.pad(b, (0, 0, 0, longest - b.shape[2])) for b in bits], dim=dim)
