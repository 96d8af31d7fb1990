"""Second formulas of the adapter family: a plain transformers encoder on padded batches, whose sub-layers end in them.

Written with torch's own layers, dense Kronecker products and sorted masks, one trial at a time; knows nothing of the engine.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import transformers


@dataclass
class Here:
    """h: after the sub-layer's dense; x: what came to the sub-layer, both [B, L, D]; real [B, L]; norm: the frozen LayerNorm."""

    layer: int
    site: str
    h: torch.Tensor
    x: torch.Tensor
    real: torch.Tensor
    norm: object
    training: bool
    dropped: int


def bottleneck(z, v, f=torch.relu):
    return F.linear(f(F.linear(z, v["down"].T, v["down_bias"])), v["up"].T, v["up_bias"])


def pfeiffer(here, v, settings):
    return here.h + bottleneck(here.norm(here.h + here.x), v)


def parallel(here, v, settings):
    return here.h + v.get("scale", settings.get("scale")) * bottleneck(here.x, v)


def adapter_drop_robust(here, v, settings):
    return pfeiffer(here, v, settings) if here.layer >= here.dropped else here.h


def compacter(here, v, settings):
    n = settings["n"]

    def dense(name):
        left, right = v[f"{name}_left"], v[f"{name}_right"]
        return sum(torch.kron(v["rule"][i], left[i] @ right[i]) for i in range(n))

    return here.h + bottleneck(here.h, {**v, "down": dense("down"), "up": dense("up")}, F.gelu)


class Largest(torch.autograd.Function):
    """1 for all but the floor((1 - share) n) smallest; passes gradients on as they are."""

    @staticmethod
    def forward(ctx, sizes, share):
        order = sizes.flatten().argsort()
        mask = torch.ones(sizes.numel())
        mask[order[: int((1 - share) * sizes.numel())]] = 0
        return mask.view_as(sizes)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def propetl(here, v, settings):
    masked = {name: v[name] * Largest.apply(v[f"{name}_scores"].abs(), settings["share"]) for name in ("down", "up")}
    return pfeiffer(here, {**v, **masked}, settings)


def houlsby_variant(here, v, settings):
    variant, h, x = settings["variant"], here.h, here.x
    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu, "swish": F.silu}.get(variant, torch.relu)
    if variant == "norm_input":
        return h + bottleneck(F.layer_norm(h, h.shape[-1:], v["gain"], v["shift"]), v)
    if variant == "norm_bottleneck":
        return h + bottleneck(h, v, lambda z: f(F.layer_norm(z, z.shape[-1:], v["gain"], v["shift"])))
    if variant == "batch_norm":
        return h + bottleneck(h, v | {"down_bias": None}, lambda z: f(batch_norm(z, v, here)))
    if variant == "extra_layers":
        return h + bottleneck(h, v, lambda z: f(F.linear(f(z), v["extra0"].T, v["extra0_bias"])))
    if variant == "multiplicative":
        return h * (1 + bottleneck(x, v))
    return h + bottleneck(x if variant == "parallel" else h, v, f)


def batch_norm(z, v, here):
    """torch's, of the real tokens alone; moves the running statistics in `v` in training."""
    out = torch.zeros_like(z)
    mean, variance = v["running_mean"].detach(), v["running_variance"].detach()
    out[here.real] = F.batch_norm(z[here.real], mean, variance, v["gain"], v["shift"], here.training, 0.1, 1e-5)
    return out


FORMULAS = {
    "pfeiffer": pfeiffer,
    "adapter_drop": pfeiffer,
    "adapter_drop_robust": adapter_drop_robust,
    "parallel": parallel,
    "houlsby_variant": houlsby_variant,
    "compacter": compacter,
    "compacter_pp": compacter,
    "propetl": propetl,
}


class PlainAdapters:
    """`values`: a trial's tensors by the engine's names, leaves of the graph."""

    def __init__(self, model, method, settings, values):
        kind = transformers.BertModel if model.family == "bert" else transformers.RobertaModel
        plain = kind.from_pretrained(model.path, attn_implementation="eager", add_pooling_layer=model.shape.pooler)
        self.model, self.settings, self.values = plain.eval().requires_grad_(False), settings, values
        self.formula, self.pad = FORMULAS[method], plain.config.pad_token_id
        self.training, self.dropped = False, 0
        self.norms = [plain.embeddings.LayerNorm]
        for i, layer in enumerate(plain.encoder.layer):
            self._change(layer.attention.output, i, "attention.output")
            self._change(layer.output, i, "ffn.output")
        for number, norm in enumerate(self.norms):
            self._own(norm, number)

    def logits(self, split, chosen):
        lengths = split.offsets[chosen + 1] - split.offsets[chosen]
        ids = np.full((len(chosen), lengths.max()), self.pad)
        for row, i, n in zip(ids, chosen, lengths, strict=True):
            row[:n] = split.ids[split.offsets[i] : split.offsets[i] + n]
        self.real = torch.from_numpy(np.arange(ids.shape[1])[None] < lengths[:, None])
        # RoBERTa derives positions from padding tokens, which the made-up data also uses as words.
        offset = 0 if self.model.config.model_type == "bert" else self.pad + 1
        positions = torch.arange(ids.shape[1])[None].expand(ids.shape) + offset
        out = self.model(torch.from_numpy(ids), self.real.long(), position_ids=positions)
        v = self.values
        if self.model.config.model_type == "bert":
            return out.pooler_output @ v["head.out"] + v["head.out_bias"]
        first = torch.tanh(out.last_hidden_state[:, 0] @ v["head.dense"] + v["head.dense_bias"])
        return first @ v["head.out"] + v["head.out_bias"]

    def loss(self, split, chosen):
        return F.cross_entropy(self.logits(split, chosen), torch.from_numpy(split.labels[chosen]).long())

    def _change(self, output, layer, site):
        self.norms.append(output.LayerNorm)
        frozen = output.LayerNorm.weight.clone(), output.LayerNorm.bias.clone()

        def norm(h):
            return F.layer_norm(h, h.shape[-1:], *frozen, output.LayerNorm.eps)

        def forward(hidden, x):
            h, prefix = output.dense(hidden), f"{layer}.{site}."
            v = {k.removeprefix(prefix): t for k, t in self.values.items() if k.startswith(prefix)}
            if v:
                v |= {k.removeprefix("shared."): t for k, t in self.values.items() if k.startswith("shared.")}
                here = Here(layer, site, h, x, self.real, norm, self.training, self.dropped)
                h = self.formula(here, v, self.settings)
            return output.LayerNorm(h + x)

        output.forward = forward

    def _own(self, norm, number):
        weight = self.values.get(f"norm.{number}.weight", norm.weight)
        bias = self.values.get(f"norm.{number}.bias", norm.bias)
        norm.forward = lambda h: F.layer_norm(h, h.shape[-1:], weight, bias, norm.eps)
