"""What each method's card says, in terms of `PlainEncoder`; `v` are a trial's tensors by name."""

import torch
from plain_encoder import PlainEncoder


def flat_prefix(v):
    return lambda i, x: (v[f"{i}.attention.prefix.key"], v[f"{i}.attention.prefix.value"])


def made_prefix(v):
    def prefix(i, x):
        z = torch.tanh(v["shared.prompt"] @ v["shared.hidden"] + v["shared.hidden_bias"])
        both = z @ v[f"{i}.attention.prefix.out"] + v[f"{i}.attention.prefix.out_bias"]
        return both[:, : x.shape[1]], both[:, x.shape[1] :]

    return prefix


def adaption_context(v, plain, H=4):
    def context(i, q, c):
        prompt, parts = v[f"{i}.attention.context.prompt"], []
        k, u = (plain._linear(i, name, prompt) for name in ("key", "value"))
        for h, (a, b, e) in enumerate(zip(q.chunk(H, -1), k.chunk(H, -1), u.chunk(H, -1), strict=True)):
            gate = torch.tanh(v[f"{i}.attention.context.gate"][h])
            parts.append(gate * torch.softmax(a @ b.T / a.shape[-1] ** 0.5, -1) @ e)
        return c + torch.cat(parts, -1)

    return context


def bottleneck(v, i, x):
    p = f"{i}.ffn.output."
    return torch.relu(x @ v[p + "down"] + v[p + "down_bias"]) @ v[p + "up"] + v[p + "up_bias"]


def unipelt(v, plain):
    def gate(place, x):
        return torch.sigmoid(x @ v[place + ".gate"] + v[place + ".gate_bias"]).mean()

    def low_rank(name):
        def change(i, x, h):
            place = f"{i}.attention.{name}"
            return h + gate(place, x) * (x @ v[place + ".a"] @ v[place + ".b"])

        return change

    def prefix(i, x):
        return [gate(f"{i}.attention.prefix", x) * part for part in flat_prefix(v)(i, x)]

    def ffn(i, a, h):
        w, path = plain.weights, f"encoder.layer.{i}.output.LayerNorm."
        x = torch.nn.functional.layer_norm(h + a, a.shape[-1:], w[path + "weight"], w[path + "bias"], 1e-12)
        return h + gate(f"{i}.ffn.output", x) * bottleneck(v, i, x)

    return {"query": low_rank("query"), "value": low_rank("value"), "prefix": prefix, "ffn": ffn}


def shifted(v, sites):
    return {name: lambda i, x, h, site=site: h + v[f"{i}.{site}.delta"] for name, site in sites.items()}


SITES = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "dense": "attention.dense",
    "intermediate": "ffn.intermediate",
    "ffn": "ffn.dense",
}


def changes_of(method, v, plain):
    """What the method's card says, in terms of `PlainEncoder`."""
    if method in ("prefix", "p_tuning_v2"):
        return {"prefix": flat_prefix(v)}
    if method == "prefix_mlp":
        return {"prefix": made_prefix(v)}
    if method == "prompt_tuning":
        return {"words": lambda e: torch.cat([e[:1], v["0.embeddings.prompt"], e[1:]])}
    if method == "adaption_prompt":
        return {"context": adaption_context(v, plain)}
    if method == "ia3":
        scaled = {n: lambda i, x, h, n=n: h * v[f"{i}.attention.{n}.scale"] for n in ("key", "value")}
        return {**scaled, "hidden": lambda i, h: h * v[f"{i}.ffn.hidden.scale"]}
    if method == "bitfit_small":
        return shifted(v, {name: SITES[name] for name in ("query", "intermediate")})
    if method == "bitfit":
        return shifted(v, SITES)
    if method == "mam":
        return {"prefix": flat_prefix(v), "ffn": lambda i, a, h: h + 2.0 * bottleneck(v, i, a)}
    if method == "unipelt":
        return unipelt(v, plain)
    return {}


def plain_of(method, model, v):
    plain = PlainEncoder(model, v)
    plain.changes.update(changes_of(method, v, plain))
    return plain
