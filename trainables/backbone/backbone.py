"""A frozen pretrained encoder, and its forward pass over packed rows.

Transformers loads the modules; their own forward functions are not used. The forward pass is written out here once for all
families: embeddings, then per layer attention and the feed-forward part, each followed by dropout, residual and LayerNorm. At
each site it calls an `EncoderPass`, which applies the formulas of the trials' methods to their rows. The modules stay in
evaluation mode; dropout is drawn per trial and applied by the `EncoderPass`.

Legend: N tokens of all rows, n of them for which a layer computes queries and all later states, B examples of all rows, L
longest example, l most keys that a method adds, H heads, D width. LayerNorms and dropout are numbered: 0 after the
embeddings, 2 i + 1 and 2 i + 2 after the two sub-layers of layer i.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from search_spaces.language import Precision
from search_spaces.quantization import Nf4
from trainables.backbone import weight_files
from trainables.backbone.attention import ExtraKeyValues, ScoreBias, attend
from trainables.backbone.families import FAMILIES
from trainables.backbone.families.family import SUBLAYERS
from trainables.backbone.models import Model
from trainables.backbone.packing import Rows, TokenSelection
from trainables.backbone.quantized_linear import QuantizedLinear, num_bytes
from trainables.methods.spec import Shape, Site

T = TypeVar("T")
# The last linear map of each sub-layer. Dropout, residual and LayerNorm follow its output.
TO_RESIDUAL: tuple[Site, ...] = tuple(maps[-1] for maps in SUBLAYERS.values())


class EncoderPass(Protocol):
    """What one forward pass over packed rows calls at the sites of the encoder, to apply methods and dropout of the trials.

    Every h is [1, n, width] and holds the hidden states of the tokens that `tokens` selects.
    """

    rows: Rows
    # Whether attention computes scores and probabilities as explicit tensors instead of in a fused kernel.
    explicit: bool

    def select_query_positions(self, layer: int) -> TokenSelection:
        """Returns the tokens for which a layer computes queries and all later states. Keys and values are of all tokens."""

    def insert_virtual_tokens(self, h: Tensor) -> Tensor:
        """Returns word embeddings h [1, N, D] in which those of the virtual tokens are replaced by what the methods supply."""

    def act(
        self,
        layer: int,
        site: Site,
        h: Tensor,
        tokens: TokenSelection,
        x: Tensor | None = None,
        residual: Tensor | None = None,
        query: Tensor | None = None,
    ) -> Tensor:
        """Returns h after each method's formula at this site was applied to the rows of its trials.

        x: input of the linear map or sub-layer whose output is h. residual: what will be added to h. query: the layer's
        queries. Each is None at sites that do not have it.
        """

    def extra_key_values(self, layer: int, x: Tensor, tokens: TokenSelection) -> ExtraKeyValues | None:
        """Returns the keys and values that methods add in a layer, or None. x [1, n, D] is the input of its query map."""

    def drop(self, number: int, h: Tensor, tokens: TokenSelection) -> Tensor:
        """Returns h after the dropout with this number (see the legend)."""

    def probability_factors(self, layer: int) -> Tensor | None:
        """Returns the dropout factors [B, H, L, L + l] of a layer's attention probabilities; None without dropout."""

    def norm(self, number: int, h: Tensor, tokens: TokenSelection) -> Tensor:
        """Returns h after the LayerNorm with this number (see the legend)."""


class PartOfLinear:
    """A linear map [out, in] that is a part of a module's outputs. Its weight and bias are views of the module's.

    outputs: which of the module's outputs are the map's. transposed: the module's weight is [in, out].
    """

    def __init__(self, whole: nn.Linear, outputs: slice, transposed: bool = False):
        self._whole, self._outputs, self._transposed = whole, outputs, transposed

    @property
    def weight(self) -> Tensor:
        whole = self._whole.weight
        return (whole.T if self._transposed else whole)[self._outputs]

    @property
    def bias(self) -> Tensor | None:
        bias = self._whole.bias
        return None if bias is None else bias[self._outputs]


LinearMap = nn.Linear | PartOfLinear | QuantizedLinear


class Backbone:
    """The frozen encoder on one device. `precision` is that of matrix products; everything else is computed in fp32."""

    def __init__(self, module: nn.Module, family: str, shape: Shape, precision: Literal["fp32", "bf16"] = "fp32"):
        self.module, self.family, self.shape, self.precision = module.eval(), FAMILIES[family], shape, precision
        module.requires_grad_(False)
        # For how many parts of a token attention has an index of its own (`Rows`): its heads, or 1, which is faster on a GPU.
        self.indexed_heads = 1 if self.device.type == "cuda" else shape.heads
        self._cache: dict[Hashable, Any] = {}
        get: Callable[[str], Any] = module.get_submodule
        self.norms: list[nn.LayerNorm] = [get(path) for path in self.family.norm_paths(shape.layers)]
        self._maps: list[dict[Site, LinearMap]] = [
            {site: self._linear_map(layer, site) for site in self.family.maps} for layer in range(shape.layers)
        ]
        # Initial values of a pretrained head, by the names that the parameters of trials have.
        self.pretrained_head: dict[str, Tensor] = {}
        # Whether the linear maps are stored in 4 bits.
        self.quantized = False
        config: Any = module.config
        self._activation = ACT2FN[getattr(config, self.family.keys.activation)]

    @classmethod
    def load(
        cls, model: Model, device: torch.device, precision: Precision = "fp32", nf4: Nf4 | None = None
    ) -> Backbone:
        """Load the model's weights in fp32 from its safetensors file. A pooler that the file lacks is drawn from a fixed seed.

        With precision "nf4", the linear maps of all layers are then quantised as `nf4` says, by default as a recipe's defaults.
        """
        family = FAMILIES[model.family]
        own: type[Backbone] = pkgutil.resolve_name(family.forward_pass)
        kind: Any = getattr(transformers, family.model)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        options = {} if family.pretrained_pooler is None else {"add_pooling_layer": model.shape.pooler}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = kind.from_pretrained(
                model.path, dtype=torch.float32, use_safetensors=True, local_files_only=True, **options
            )
        if precision == "nf4":
            how = nf4 or Nf4()
            backbone = own(module, model.family, model.shape, how.compute)
            backbone._quantize(how, device)
        else:
            backbone = own(module.to(device), model.family, model.shape, precision)
        head = family.head
        if head.starts_pretrained:
            found = weight_files.read(model.path, [f"{path}.weight" for path in (head.dense, head.norm)])
            backbone.pretrained_head = {
                ours: found[f"{path}.weight"].float().mT if ours == "head.dense" else found[f"{path}.weight"].float()
                for ours, path in (("head.dense", head.dense), ("head.norm", head.norm))
                if f"{path}.weight" in found
            }
        return backbone

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def num_bytes(self) -> int:
        """The memory in bytes that the pretrained tensors occupy now, with the copies in bf16 that passes have made of them."""
        copies = [
            t
            for key, made in self._cache.items()
            if isinstance(key, nn.Linear | PartOfLinear)
            for t in made
            if t is not None
        ]
        return num_bytes(self.module) + sum(t.numel() * t.element_size() for t in copies)

    @property
    def config_dropout(self) -> tuple[float, float, float]:
        """The dropout rates in the pretrained model's config: of hidden states, of attention probabilities and in the head."""
        return self.family.dropout(self.module.config)

    @property
    def score_scale(self) -> float | None:
        """The factor of attention scores; None for the usual one."""
        return None

    @property
    def words(self) -> nn.Embedding:
        """The word embeddings."""
        module: Any = self.module.get_submodule(self.family.embeddings.words)
        return module

    def map_at(self, layer: int, site: Site) -> LinearMap:
        """The linear map at whose output this site is."""
        return self._maps[layer][site]

    def frozen(self, layer: int, site: Site) -> tuple[Tensor, Tensor]:
        """Returns weight [out, in], dequantised if it is quantised, and bias [out] of a linear map in fp32."""
        linear = self._maps[layer][site]
        weight = linear.weight_in(torch.float32) if isinstance(linear, QuantizedLinear) else linear.weight
        return weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the result of `make()`, which is called once per key and kept as long as this backbone."""
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def normalize(self, number: int, h: Tensor, affine: bool = True) -> Tensor:
        """Returns h [1, n, D] after the pretrained norm with this number (see the legend). `affine`: with its gain and bias."""
        norm = self.norms[number]
        gain, bias = (norm.weight, norm.bias) if affine else (None, None)
        return F.layer_norm(h, norm.normalized_shape, gain, bias, norm.eps)

    def gain(self, weight: Tensor) -> Tensor:
        """Returns the factor of a norm from its parameter `weight`."""
        return weight

    def norm_of_sum(self, layer: int, site: Site, h: Tensor) -> Tensor:
        """Returns h [1, n, D], a sum of a sub-layer's output and the residual, after the pretrained norm that follows it."""
        return self.normalize(2 * layer + 1 + list(SUBLAYERS).index(site), h)

    def products(self) -> AbstractContextManager[object]:
        """Returns the context manager that sets the precision of matrix products between tensors other than frozen weights."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def states(self, run: EncoderPass) -> Tensor:
        """Run the encoder. Returns the last hidden states [1, n, D] of the tokens that `run` selects in the last layer."""
        h = self._embed(run)
        for layer in range(self.shape.layers):
            h = self.layer(run, layer, h)
        return h

    def layer(self, run: EncoderPass, layer: int, h: Tensor) -> Tensor:
        """Run one layer on h [1, N, D]. Returns the hidden states [1, n, D] of the tokens that `run` selects."""
        tokens = run.select_query_positions(layer)
        return self._feed_forward(run, layer, self._attention(run, layer, h, tokens), tokens)

    def _embed(self, run: EncoderPass) -> Tensor:
        rows, family, get = run.rows, self.family.embeddings, self.module.get_submodule
        h = run.insert_virtual_tokens(self.words(rows.input_ids))
        if family.token_types:
            h = h + get(family.token_types)(rows.token_types)
        if family.positions:
            h = h + get(family.positions)(rows.positions + self.family.first_position)
        h = run.norm(0, h, rows.all_tokens)
        return run.drop(0, h, rows.all_tokens)

    def _attention(self, run: EncoderPass, layer: int, x: Tensor, tokens: TokenSelection) -> Tensor:
        """Attention sub-layer: x [1, N, D] -> [1, n, D]. Keys and values are of all tokens, queries of those in `tokens`."""
        everything, narrow = run.rows.all_tokens, self._narrow(x)
        key = self._map(run, layer, "attention.key", x, everything, narrow)
        value = self._map(run, layer, "attention.value", x, everything, narrow)
        residual = tokens.select(x)
        query = self._map(
            run, layer, "attention.query", residual, tokens, narrow if residual is x else self._narrow(residual)
        )
        context = attend(
            run.rows,
            self.shape.heads,
            query,
            key,
            value,
            products=self.products,
            explicit=run.explicit,
            extra=run.extra_key_values(layer, residual, tokens),
            factors=run.probability_factors(layer),
            bias=self._score_bias(run, layer),
            scale=self.score_scale,
        )
        context = run.act(layer, "attention.context", context, tokens, x=residual, query=query)
        h = self._map(run, layer, "attention.dense", context, tokens, self._narrow(context))
        return self._join_residual(run, layer, "attention.output", h, residual, tokens)

    def _score_bias(self, run: EncoderPass, layer: int) -> ScoreBias | None:
        """Returns what is added to the attention scores of a layer; None for nothing."""
        return None

    def _feed_forward(self, run: EncoderPass, layer: int, x: Tensor, tokens: TokenSelection) -> Tensor:
        inner = self._map(run, layer, "ffn.intermediate", x, tokens, self._narrow(x))
        inner = run.act(layer, "ffn.hidden", self._activation(inner), tokens)
        h = self._map(run, layer, "ffn.dense", inner, tokens, self._narrow(inner))
        return self._join_residual(run, layer, "ffn.output", h, x, tokens)

    def _join_residual(
        self, run: EncoderPass, layer: int, site: Site, h: Tensor, residual: Tensor, tokens: TokenSelection
    ) -> Tensor:
        """Apply to a sub-layer's output h dropout, the methods' formulas, the residual and LayerNorm, in this order."""
        number = 2 * layer + 1 + list(SUBLAYERS).index(site)
        if site in self.family.dropped_outputs:
            h = run.drop(number, h, tokens)
        h = run.act(layer, site, h, tokens, x=residual, residual=residual)
        return run.norm(number, h + residual, tokens)

    def _map(
        self, run: EncoderPass, layer: int, site: Site, x: Tensor, tokens: TokenSelection, narrow: Tensor
    ) -> Tensor:
        """Apply a linear map of the encoder, and the methods' formulas at its output. Returns [1, n, width].

        x: the input in fp32, for the formulas. narrow: the same in the precision of matrix products, for the map. In bf16
        only outputs that are added to the residual are cast to fp32; the others are inputs of further bf16 products.
        """
        h = self._product(self._maps[layer][site], narrow)
        if self.precision != "fp32" and site in TO_RESIDUAL:
            h = h.float()
        return run.act(layer, site, h, tokens, x=x)

    def _product(self, linear: LinearMap, narrow: Tensor) -> Tensor:
        """Returns the linear map of an input in the precision of matrix products, in that precision."""
        if isinstance(linear, QuantizedLinear):
            return linear(narrow)
        weight, bias = (linear.weight, linear.bias) if self.precision == "fp32" else self._narrow_weights(linear)
        return F.linear(narrow, weight, bias)

    def _narrow(self, x: Tensor) -> Tensor:
        return x if self.precision == "fp32" else x.bfloat16()

    def _linear_map(self, layer: int, site: Site) -> LinearMap:
        module: Any = self.module.get_submodule(self.family.map_path(layer, site))
        transposed = isinstance(module, Conv1D)
        if site not in self.family.fused and not transposed:
            return module
        parts = self.family.sites_in_module(site)
        start = sum(self.shape.ends(other)[1] for other in parts[: parts.index(site)])
        return PartOfLinear(module, slice(start, start + self.shape.ends(site)[1]), transposed)

    def _quantize(self, how: Nf4, device: torch.device) -> None:
        """Replace the linear maps, whose weights are on the CPU, by quantised ones, and move the model to the device."""
        for layer, maps in enumerate(self._maps):
            quantized: dict[Site, QuantizedLinear] = {}
            for site, linear in maps.items():
                assert not isinstance(linear, QuantizedLinear)
                quantized[site] = QuantizedLinear(linear.weight, linear.bias, how, device)
            for site in maps:
                path = self.family.map_path(layer, site)
                same = [each for other, each in quantized.items() if self.family.map_path(layer, other) == path]
                # As modules they count in `num_bytes`, and the module whose weights they replace is dropped.
                self.module.set_submodule(path, same[0] if len(same) == 1 else nn.ModuleList(same))
            self._maps[layer] = dict(quantized)
        self.module.to(device)
        self.indexed_heads = 1 if device.type == "cuda" else self.shape.heads
        self.quantized = True

    def _narrow_weights(self, linear: nn.Linear | PartOfLinear) -> tuple[Tensor, Tensor | None]:
        """Returns weight and bias in bf16. Frozen ones are cast once and cached, those being trained are cast in every pass."""

        def cast() -> tuple[Tensor, Tensor | None]:
            return linear.weight.bfloat16(), None if linear.bias is None else linear.bias.bfloat16()

        trained = linear.weight.requires_grad or (linear.bias is not None and linear.bias.requires_grad)
        return cast() if trained else self.cached(linear, cast)
