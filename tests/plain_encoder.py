"""A second formula for every method: one example at a time through a saved encoder's tensors, written out, nothing shared with
the engine. What a method changes is given as functions by place."""

from collections.abc import Callable

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

LINEARS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "dense": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "ffn": "output.dense",
}


class PlainEncoder:
    """`values`: a trial's tensors by name; `changes`: what a method does, by place, to what is there.

    query, key, value, dense, intermediate, ffn: (layer, x, h) -> h, of a linear map from x to h; hidden: (layer, h) -> h;
    prefix: (layer, x) -> keys and values [l, D] of x, the layer's input; context: (layer, q, c) -> c; words: (e) -> e;
    factors: (layer) -> [H, n, n + l], what probabilities are multiplied with, prefix last.
    """

    def __init__(self, model, values: dict[str, Tensor], **changes: Callable):
        self.model, self.values, self.changes = model, values, changes
        self.weights = load_file(model.path / "model.safetensors")

    def states(self, ids: Tensor) -> Tensor:
        """[n] -> last hidden states [n, D], virtual tokens included."""
        w, offset = self.weights, 2 if self.model.family == "roberta" else 0
        words = self._change("words", w["embeddings.word_embeddings.weight"][ids])
        positions = w["embeddings.position_embeddings.weight"][offset : offset + len(words)]
        x = self._norm(0, "embeddings.LayerNorm", words + positions + w["embeddings.token_type_embeddings.weight"][0])
        for layer in range(self.model.shape.layers):
            x = self._layer(layer, x)
        return x

    def logits(self, ids: Tensor, reads: str = "own") -> Tensor:
        states, v = self.states(ids), self.values
        h = states.mean(0) if reads == "mean" else states[0]
        if reads == "own" and self.model.shape.pooler:
            h = torch.tanh(linear(h, self.weights["pooler.dense.weight"], self.weights["pooler.dense.bias"]))
        elif reads == "own":
            h = torch.tanh(h @ v["head.dense"] + v["head.dense_bias"])
        return h @ v["head.out"] + v["head.out_bias"]

    def _layer(self, i: int, x: Tensor) -> Tensor:
        q, k, v = (self._linear(i, name, x) for name in ("query", "key", "value"))
        if "prefix" in self.changes:
            k, v = (torch.cat([own, more]) for own, more in zip((k, v), self.changes["prefix"](i, x), strict=True))
        H = self.model.shape.heads
        factors = self.changes["factors"](i) if "factors" in self.changes else [1.0] * H
        heads = []
        for h, (a, b, c) in enumerate(zip(q.chunk(H, -1), k.chunk(H, -1), v.chunk(H, -1), strict=True)):
            heads.append((torch.softmax(a @ b.T / a.shape[-1] ** 0.5, -1) * factors[h]) @ c)
        context = self._change("context", torch.cat(heads, -1), i, q)
        layer = f"encoder.layer.{i}."
        x = self._norm(2 * i + 1, layer + "attention.output.LayerNorm", self._linear(i, "dense", context) + x)
        hidden = self._change("hidden", gelu(self._linear(i, "intermediate", x)), i)
        out = self._linear(i, "ffn", hidden, x)
        return self._norm(2 * i + 2, layer + "output.LayerNorm", out + x)

    def _linear(self, i: int, name: str, x: Tensor, asked: Tensor | None = None) -> Tensor:
        path = f"encoder.layer.{i}.{LINEARS[name]}"
        h = linear(x, self.weights[path + ".weight"], self.weights[path + ".bias"])
        return self._change(name, h, i, x if asked is None else asked)

    def _norm(self, number: int, path: str, x: Tensor) -> Tensor:
        gain = self.values.get(f"norm.{number}.weight", self.weights[path + ".weight"])
        bias = self.values.get(f"norm.{number}.bias", self.weights[path + ".bias"])
        return layer_norm(x, x.shape[-1:], gain, bias, 1e-12)

    def _change(self, name: str, h: Tensor, *where: object) -> Tensor:
        return self.changes[name](*where, h) if name in self.changes else h
