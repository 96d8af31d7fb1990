"""Dropout factors of a step. Those of a trial depend only on its own mini-batch, its seed and the number of the step.

For each trial and step, one draw of random bits serves all dropouts: after the embeddings and the two sub-layers of each
layer, in the head, of attention probabilities and of prefixes. Each element takes 16 bits, so rates are exact to 1/65536. On
a CPU NumPy draws the bits, so that the number of torch operators in a step does not grow with the number of trials; on a GPU
torch draws them there.

Legend: K trials, N tokens of all rows, D width, E most examples of a row, B examples of all rows, L tokens of the longest
example, l most keys that a method adds, H heads.
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
    """The dropout factors of one step: 0 for dropped elements, 1 / (1 - rate) for all others."""

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
        storage: DropoutFactors | None = None,
    ):
        """Draw the factors. Every list has one entry per row. `storage`: factors for rows of the same sizes, to overwrite.

        seeds: (trial's seed, number of the step). hidden, attention, head: dropout rates of hidden states, of attention
        probabilities and in the head. prefixes: number of keys that the method adds. prefix: dropout rate of these.
        """
        device = rows.input_ids.device
        K, N, L, d = len(seeds), rows.starts[-1], rows.keys.shape[-1], shape.width
        places, heads, layers = 2 * shape.layers + 1, shape.heads, shape.layers
        # Elements after the end of a row or example stay 0; no token's result depends on them.
        if storage is None:
            self._hidden = _allocate(device, any(hidden), places, 1, N, d)
            self._head = _allocate(device, any(head), 2, K, max(rows.sizes), d)
            self._attention = _allocate(device, any(attention), layers, rows.batch, heads, L, L + max(prefixes))
            self._prefix = _allocate(device, any(prefix), layers, 2, rows.batch, max(prefixes), shape.key_width)
        else:
            self._hidden, self._head = storage._hidden, storage._head
            self._attention, self._prefix = storage._attention, storage._prefix
            for factors in (self._hidden, self._head, self._attention, self._prefix):
                if factors is not None:
                    factors[...] = 0
        b = 0
        for k, seed in enumerate(seeds):
            t, e, n, m = rows.tokens[k], rows.examples[k], rows.longest[k], prefixes[k]
            sizes = [places * t * d, 2 * e * d, layers * e * heads * n * (n + m)]
            sizes += [layers * 2 * e * m * shape.key_width] if prefix[k] else []
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
                _fill(
                    self._prefix[:, :, b : b + e, :m],
                    bits[ends[2] :].reshape(layers, 2, e, m, shape.key_width),
                    prefix[k],
                )
            b += rows.sizes[k]

    @property
    def num_bytes(self) -> int:
        held = (self._hidden, self._head, self._attention, self._prefix)
        return sum(int(factors.nbytes) for factors in held if factors is not None)

    def hidden(self, place: int) -> Tensor | None:
        """Returns the factors [1, N, D] of hidden states, None without dropout.

        `place`: 0 after the embeddings, 2 i + 1 and 2 i + 2 after the two sub-layers of layer i.
        """
        return None if self._hidden is None else _tensor(self._hidden[place])

    def head(self, which: int) -> Tensor | None:
        """Returns the factors [K, E, D] before (`which` = 0) or after (1) the head's dense layer, None without dropout.

        Heads without such a layer, like BERT's, use only 0.
        """
        return None if self._head is None else _tensor(self._head[which])

    def attention(self, layer: int) -> Tensor | None:
        """Returns the factors [B, H, L, L + l] of a layer's attention probabilities, None without dropout."""
        return None if self._attention is None else _tensor(self._attention[layer])

    def prefix(self, layer: int) -> Tensor:
        """Returns the factors [2, B, l, D] of the keys (0) and values (1) that methods add in a layer."""
        return _tensor(self._prefix[layer])


def _allocate(device: torch.device, wanted: bool, *shape: int) -> Any:
    """Returns zeros for factors of this shape: an array for the CPU, else a tensor on the device; None if not `wanted`."""
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
    """Returns `number` random int16 values, uniform over all 2**16: a NumPy array for the CPU, else a tensor on the device."""
    words = -(-number // DRAWS_PER_WORD)
    if device.type == "cpu":
        return np.random.SFC64(seed).random_raw(words).view(np.int16)[:number]
    generator = torch.Generator(device).manual_seed(seed)
    draws = torch.empty(words, dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:number]


def _tensor(bits: Any) -> Tensor:
    return bits if isinstance(bits, Tensor) else torch.from_numpy(bits)
