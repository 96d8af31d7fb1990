"""One dropout stream per trial: the masks of a step depend on the trial's seed and step alone.

One fill per trial and step covers every place: the embeddings and two sub-layers per layer, the head, and the attention
probabilities. Sixteen random bits decide an element, so a rate is met to 1/65536. The fills happen outside torch on the CPU,
so that the operators of a step do not grow with the number of trials; a GPU fills its own memory.

Legend: K trials, N tokens of all rows, D width, E examples of a row, B examples of all rows, L longest example, l most keys that
a method adds, H heads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.backbone.packing import Rows
from trainables.methods.spec import Shape
from trainables.seeds import derive

DRAWS_PER_WORD = 4  # 16-bit numbers in one 64-bit draw


class DropoutFactors:
    """The dropout factors of one step: 0 or 1 / (1 - rate)."""

    def __init__(
        self,
        rows: Rows,
        shape: Shape,
        seeds: list[tuple[int, int]],
        hidden: list[float],
        attention: list[float],
        head: list[float],
        prefixes: list[int],
        prefix: list[float],
    ):
        """One entry per row: (trial seed, step); rates of hidden states, attention probabilities and head; keys that the method
        adds, and their rate.
        """
        device = rows.input_ids.device
        K, N, L, d = len(seeds), rows.starts[-1], max(rows.longest), shape.width
        places, heads, layers = 2 * shape.layers + 1, shape.heads, shape.layers
        # Entries beyond the end of a row are undefined but finite: no real token reads them.
        self._hidden = _allocate(device, any(hidden), places, 1, N, d)
        self._head = _allocate(device, any(head), 2, K, max(rows.examples), d)
        self._attention = _allocate(device, any(attention), layers, rows.batch, heads, L, L + max(prefixes))
        self._prefix = _allocate(device, any(prefix), layers, 2, rows.batch, max(prefixes), d)
        b = 0
        for k, seed in enumerate(seeds):
            t, e, n, m = rows.tokens[k], rows.examples[k], rows.longest[k], prefixes[k]
            sizes = [places * t * d, 2 * e * d, layers * e * heads * n * (n + m)]
            sizes += [layers * 2 * e * m * d] if prefix[k] else []
            bits = random_bits(sum(sizes), derive(seed[0], "dropout", seed[1]), device)
            ends = np.cumsum(sizes)
            if self._hidden is not None:
                start = rows.starts[k]
                _fill(self._hidden[:, 0, start : start + t], bits[: ends[0]].reshape(places, t, d), hidden[k])
            if self._head is not None:
                _fill(self._head[:, k, :e], bits[ends[0] : ends[1]].reshape(2, e, d), head[k])
            if self._attention is not None:
                block = bits[ends[1] : ends[2]].reshape(layers, e, heads, n, n + m)
                room = self._attention[:, b : b + e, :, :n]
                _fill(room[..., :n], block[..., :n], attention[k])
                if m:
                    _fill(room[..., L : L + m], block[..., n:], attention[k])
            if self._prefix is not None and prefix[k]:
                _fill(self._prefix[:, :, b : b + e, :m], bits[ends[2] :].reshape(layers, 2, e, m, d), prefix[k])
            b += e

    def hidden(self, place: int) -> Tensor | None:
        """Factors [1, N, D]. `place`: 0 for the embeddings, 2 l + 1 and 2 l + 2 for the sub-layers of layer l."""
        return None if self._hidden is None else _tensor(self._hidden[place])

    def head(self, which: int) -> Tensor | None:
        """Factors [K, E, D] before (0) and after (1) the head's dense layer; BERT's head has the first only."""
        return None if self._head is None else _tensor(self._head[which])

    def attention(self, layer: int) -> Tensor | None:
        """Factors [B, H, L, L + l] of the attention probabilities of a layer."""
        return None if self._attention is None else _tensor(self._attention[layer])

    def prefix(self, layer: int) -> Tensor:
        """Factors [2, B, l, D] of the keys and values that methods add in a layer."""
        return _tensor(self._prefix[layer])


def _allocate(device: torch.device, wanted: bool, *shape: int) -> Any:
    """Memory for factors: an array on the CPU, a tensor elsewhere, None without dropout."""
    if not wanted:
        return None
    return np.zeros(shape, np.float32) if device.type == "cpu" else torch.zeros(shape, device=device)


def _fill(out: Any, bits: Any, rate: float) -> None:
    scale = 1 / (1 - rate)
    retained = bits >= round(rate * 65536) - 32768
    if isinstance(out, Tensor):
        torch.mul(retained, scale, out=out)
    else:
        np.multiply(retained, np.float32(scale), out=out)


def random_bits(number: int, seed: int, device: torch.device) -> Any:
    """Random bits of one trial and step, [number]."""
    words = -(-number // DRAWS_PER_WORD)
    if device.type == "cpu":
        return np.random.SFC64(seed).random_raw(words).view(np.int16)[:number]
    generator = torch.Generator(device).manual_seed(seed)
    draws = torch.empty(words, dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:number]


def _tensor(bits: Any) -> Tensor:
    return bits if isinstance(bits, Tensor) else torch.from_numpy(bits)
