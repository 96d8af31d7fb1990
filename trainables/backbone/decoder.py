"""A frozen decoder of Llama's kind, and its forward pass over packed rows.

Norms come before the sub-layers, and what a sub-layer returns is added to the hidden states that it did not normalise. Queries
and keys are rotated by their positions, several heads of queries share one of keys, and each token attends to earlier ones.

Legend: as in backbone.py, and w width of a head. Norms are numbered: 2 i and 2 i + 1 before the two sub-layers of layer i, 2 L
after the last layer. So the norm that follows an output has the same number as in an encoder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.attention import attend
from trainables.backbone.backbone import Backbone, EncoderPass
from trainables.backbone.families.decoder_family import DecoderFamily
from trainables.backbone.families.family import SUBLAYERS
from trainables.backbone.packing import TokenSelection
from trainables.methods.spec import Site


class Decoder(Backbone):
    """The frozen decoder on one device. `causal`: whether no token attends to later ones."""

    causal = True

    def normalize(self, number: int, h: Tensor, affine: bool = True) -> Tensor:
        """Returns h [1, n, D] after the pretrained norm with this number (see the legend). `affine`: with its gain."""
        norm: Any = self.norms[number]
        return F.rms_norm(h, h.shape[-1:], norm.weight if affine else None, norm.variance_epsilon)

    def states(self, run: EncoderPass) -> Tensor:
        """Run the decoder. Returns the last hidden states [1, n, D] of the tokens that `run` selects in the last layer."""
        last = self.shape.layers - 1
        return run.norm(2 * self.shape.layers, super().states(run), run.select_query_positions(last))

    def _embed(self, run: EncoderPass) -> Tensor:
        h = run.insert_virtual_tokens(self.words(run.rows.input_ids))
        return run.drop(0, h, run.rows.all_tokens)

    def _attention(self, run: EncoderPass, layer: int, x: Tensor, tokens: TokenSelection) -> Tensor:
        """Attention sub-layer: h [1, N, D] -> [1, n, D]. Keys and values are of all tokens, queries of those in `tokens`."""
        everything, residual = run.rows.all_tokens, tokens.select(x)
        x = self._attention_input(run, layer, x)
        narrow = self._narrow(x)
        key = self._map(run, layer, "attention.key", x, everything, narrow)
        value = self._map(run, layer, "attention.value", x, everything, narrow)
        read = tokens.select(x)
        query = self._map(run, layer, "attention.query", read, tokens, narrow if read is x else self._narrow(read))
        rotation = self._rotation(layer, run.rows.positions)
        query = self._rotated(layer, "attention.query", query, tuple(map(tokens.select, rotation)))
        key = self._rotated(layer, "attention.key", key, rotation)
        extra = run.extra_key_values(layer, read, tokens)
        context = attend(
            run.rows,
            self.shape.heads,
            query,
            self._shared(key),
            self._shared(value),
            products=self.products,
            explicit=run.explicit,
            extra=extra and replace(extra, keys=self._shared(extra.keys), values=self._shared(extra.values)),
            factors=run.probability_factors(layer),
            causal=self.causal,
            window=self._window(layer),
        )
        context = run.act(layer, "attention.context", context, tokens, x=read, query=query)
        h = self._map(run, layer, "attention.dense", context, tokens, self._narrow(context))
        return self._add(run, layer, "attention.output", h, read, residual, tokens)

    def _attention_input(self, run: EncoderPass, layer: int, x: Tensor) -> Tensor:
        """Returns what a layer's query, key and value maps read, from its input x [1, N, D]."""
        return run.norm(2 * layer, x, run.rows.all_tokens)

    def _feed_forward(self, run: EncoderPass, layer: int, x: Tensor, tokens: TokenSelection) -> Tensor:
        residual, x = x, run.norm(2 * layer + 1, x, tokens)
        narrow = self._narrow(x)
        gate = self._map(run, layer, "ffn.gate", x, tokens, narrow)
        inner = self._activation(gate) * self._map(run, layer, "ffn.intermediate", x, tokens, narrow)
        inner = run.act(layer, "ffn.hidden", inner, tokens)
        h = self._map(run, layer, "ffn.dense", inner, tokens, self._narrow(inner))
        return self._add(run, layer, "ffn.output", h, x, residual, tokens)

    def _add(
        self,
        run: EncoderPass,
        layer: int,
        site: Site,
        h: Tensor,
        x: Tensor,
        residual: Tensor,
        tokens: TokenSelection,
    ) -> Tensor:
        """Apply to a sub-layer's output h dropout and the methods' formulas, and add the residual. x: the sub-layer's input."""
        h = run.drop(2 * layer + 1 + list(SUBLAYERS).index(site), h, tokens)
        return residual + run.act(layer, site, h, tokens, x=x, residual=residual)

    def _rotation(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines [1, N, w] of a layer's rotations of tokens at these positions [1, N]."""
        rotary: Any = self.module.get_submodule("rotary_emb")
        with torch.no_grad():
            cos, sin = rotary(self.words.weight[:0], position_ids=positions)
        return cos, sin

    def _rotated(self, layer: int, site: Site, x: Tensor, rotation: tuple[Tensor, ...]) -> Tensor:
        """Returns queries or keys x [1, n, heads w], normalised per head where the family does that, after their rotation."""
        cos, sin = (each[:, :, None] for each in rotation)
        heads = x.unflatten(-1, (-1, self.shape.query_width // self.shape.heads))
        heads = self._normalized_heads(layer, site, heads)
        one, two = heads.chunk(2, -1)
        return (heads * cos + torch.cat([-two, one], -1) * sin).flatten(2).to(x.dtype)

    def _normalized_heads(self, layer: int, site: Site, heads: Tensor) -> Tensor:
        """Returns queries or keys [1, n, heads, w] after the norm of each head, if the family has such norms."""
        family = self.family
        assert isinstance(family, DecoderFamily)
        if site not in family.head_norms:
            return heads
        norm: Any = self.module.get_submodule(family.layer.format(layer) + family.head_norms[site])
        return F.rms_norm(heads.float(), heads.shape[-1:], norm.weight, norm.variance_epsilon)

    def _shared(self, x: Tensor) -> Tensor:
        """Returns keys or values x [.., n, G w] once for each head of queries: [.., n, H w]."""
        times = self.shape.query_width // self.shape.key_width
        if times == 1:
            return x
        width = self.shape.query_width // self.shape.heads
        return x.unflatten(-1, (-1, width)).repeat_interleave(times, -2).flatten(-2)

    def _window(self, layer: int) -> int | None:
        """Returns how many places back a layer's tokens attend, themselves included; None for all."""
        config: Any = self.module.config
        window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        if window is None or not getattr(config, "use_sliding_window", True):
            return None
        return window if kinds is None or kinds[layer] == "sliding_attention" else None
