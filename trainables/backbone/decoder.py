"""A frozen decoder of Llama's kind, and its forward pass over packed rows.

Norms come before the sub-layers, and what a sub-layer returns is added to the hidden states that it did not normalise. Some
families normalise what a sub-layer returns as well, or instead. Queries and keys are rotated by their positions, several heads of
queries share one of keys, and each token attends to earlier ones.

Legend: as in backbone.py, and w width of a head. Norms are numbered: 2 i and 2 i + 1 before the two sub-layers of layer i, 2 L
after the last layer, then those of the sub-layers' outputs. So the norm that follows the sum of an output and the residual has
the same number as in an encoder. Where only outputs are normalised, theirs are 2 i and 2 i + 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.attention import attend
from trainables.backbone.backbone import Backbone, EncoderPass
from trainables.backbone.families.branch_norm_family import BranchNormFamily
from trainables.backbone.families.family import SUBLAYERS
from trainables.backbone.packing import TokenSelection
from trainables.methods.spec import Site


class Decoder(Backbone):
    """The frozen decoder on one device. `causal`: whether no token attends to later ones."""

    family: BranchNormFamily
    causal = True

    def gain(self, weight: Tensor) -> Tensor:
        """Returns the factor of a norm from its parameter `weight`."""
        offset = self.family.gain_offset
        return weight + offset if offset else weight

    def norm_of_sum(self, layer: int, site: Site, h: Tensor) -> Tensor:
        """Returns h [1, n, D], a sum of a sub-layer's output and the residual, after the pretrained norm that follows it."""
        assert self.shape.sums_normalized, "methods check this before they are built"
        return super().norm_of_sum(layer, site, h)

    def normalize(self, number: int, h: Tensor, affine: bool = True) -> Tensor:
        """Returns h [1, n, D] after the pretrained norm with this number (see the legend). `affine`: with its gain."""
        if self.shape.norm_biases:
            return super().normalize(number, h, affine)
        return F.rms_norm(h, h.shape[-1:], self.gain(self.norms[number].weight) if affine else None, self._epsilon)

    def states(self, run: EncoderPass) -> Tensor:
        """Run the decoder. Returns the last hidden states [1, n, D] of the tokens that `run` selects in the last layer."""
        last = self.shape.layers - 1
        return run.norm(2 * self.shape.layers, super().states(run), run.select_query_positions(last))

    def _embed(self, run: EncoderPass) -> Tensor:
        h = run.insert_virtual_tokens(self.words(run.rows.input_ids))
        if self.family.embeddings.positions:
            h = h + self.module.get_submodule(self.family.embeddings.positions)(run.rows.positions)
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
        query, key = self._normalized(layer, "attention.query", query), self._normalized(layer, "attention.key", key)
        if self._rotates(layer):
            rotation = self._rotation(layer, run.rows.positions)
            query, key = self._rotated(query, tuple(map(tokens.select, rotation))), self._rotated(key, rotation)
        query, key = query.to(value.dtype), key.to(value.dtype)
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
            scale=self._scale,
            soft_cap=self._soft_cap,
        )
        context = run.act(layer, "attention.context", context, tokens, x=read, query=query)
        h = self._map(run, layer, "attention.dense", context, tokens, self._narrow(context))
        return self._add(run, layer, "attention.output", h, read, residual, tokens)

    def _attention_input(self, run: EncoderPass, layer: int, x: Tensor) -> Tensor:
        """Returns what a layer's query, key and value maps read, from its input x [1, N, D]."""
        return run.norm(2 * layer, x, run.rows.all_tokens) if self.family.norms else x

    def _feed_forward(self, run: EncoderPass, layer: int, x: Tensor, tokens: TokenSelection) -> Tensor:
        residual, x = x, run.norm(2 * layer + 1, x, tokens) if self.family.norms else x
        narrow = self._narrow(x)
        if self.shape.gated:
            gate = self._map(run, layer, "ffn.gate", x, tokens, narrow)
            inner = self._activation(gate) * self._map(run, layer, "ffn.intermediate", x, tokens, narrow)
        else:
            inner = self._activation(self._map(run, layer, "ffn.intermediate", x, tokens, narrow))
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
        """Apply to a sub-layer's output h its norm, dropout and the methods' formulas, and add the residual.

        x: the sub-layer's input.
        """
        sublayer = list(SUBLAYERS).index(site)
        if self.family.output_norms:
            h = run.norm(self.family.output_norm_number(layer, sublayer, self.shape.layers), h, tokens)
        h = run.drop(2 * layer + 1 + sublayer, h, tokens)
        return residual + run.act(layer, site, h, tokens, x=x, residual=residual)

    def _normalized(self, layer: int, site: Site, x: Tensor) -> Tensor:
        """Returns queries or keys x [1, n, heads w] after their norm in fp32, of each head or of all, if the family has one."""
        path = self.family.query_key_norms.get(site)
        if path is None:
            return x
        weight = self.module.get_parameter(f"{self.family.layer.format(layer)}{path}.weight")
        parts = x.unflatten(-1, (-1, len(weight))).float()
        return F.rms_norm(parts, parts.shape[-1:], self.gain(weight), self._epsilon).flatten(2)

    def _rotates(self, layer: int) -> bool:
        """Returns whether a layer rotates queries and keys. None does where positions have embeddings."""
        key = self.family.rotated_key
        if self.family.embeddings.positions:
            return False
        return not key or bool(getattr(self.module.config, key)[layer])

    def _rotation(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines [1, N, w] of a layer's rotations of tokens at these positions [1, N]."""
        rotary: Any = self.module.get_submodule("rotary_emb")
        config: Any = self.module.config
        kind = {"layer_type": config.layer_types[layer]} if self.family.rotates_by_kind else {}
        with torch.no_grad():
            cos, sin = rotary(self.words.weight[:0], position_ids=positions, **kind)
        return cos, sin

    def _rotated(self, x: Tensor, rotation: tuple[Tensor, ...]) -> Tensor:
        """Returns queries or keys x [1, n, heads w] after their rotation, in fp32."""
        cos, sin = (each[:, :, None] for each in rotation)
        heads = x.unflatten(-1, (-1, self.shape.query_width // self.shape.heads))
        one, two = heads.chunk(2, -1)
        return (heads * cos + torch.cat([-two, one], -1) * sin).flatten(2)

    def _shared(self, x: Tensor) -> Tensor:
        """Returns keys or values x [.., n, G w] once for each head of queries: [.., n, H w]."""
        times = self.shape.query_width // self.shape.key_width
        if times == 1:
            return x
        width = self.shape.query_width // self.shape.heads
        return x.unflatten(-1, (-1, width)).repeat_interleave(times, -2).flatten(-2)

    @property
    def _epsilon(self) -> float:
        """What norms add to the mean square."""
        config: Any = self.module.config
        return float(config.rms_norm_eps)

    @property
    def _scale(self) -> float | None:
        """The factor of the scores; None for 1 / sqrt(w)."""
        key = self.family.scale_key
        return float(getattr(self.module.config, key)) ** -0.5 if key else None

    @property
    def _soft_cap(self) -> float | None:
        key = self.family.soft_cap_key
        return getattr(self.module.config, key) if key else None

    def _window(self, layer: int) -> int | None:
        """Returns how many places back a layer's tokens attend, themselves included; None for all."""
        config: Any = self.module.config
        window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        if window is None or not getattr(config, "use_sliding_window", True):
            return None
        return window if kinds is None or kinds[layer] == "sliding_attention" else None
