"""A frozen Hugging Face encoder and the named places in it where trials act.

The model files stay untouched: hooks and replaced forwards of its modules call back into the `Pass` of the moment, which knows
whose rows are whose. The encoder itself is always in evaluation mode; dropout is drawn per trial.

Legend: K slots, N tokens of all rows, E examples of a row, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from search_spaces.language import Precision
from trainables.backbone.attention import ATTENTION, Attending, attend
from trainables.backbone.models import WEIGHTS, Model
from trainables.methods.spec import Shape, Site

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """The site map of a model family: generic place -> attribute path, `{}` the layer's number."""

    model: str
    words: str
    embeddings: str
    attention: str
    linears: dict[Site, str]
    hidden: str
    # Sub-layers whose output is a dense layer, dropout, the residual and a LayerNorm.
    outputs: dict[Site, str]
    dropout: str
    norm: str
    # What transformers adds to positions: RoBERTa counts from the padding index + 1.
    position_offset: int


BERT = ModelFamily(
    model="BertModel",
    words="embeddings.word_embeddings",
    embeddings="embeddings",
    attention="encoder.layer.{}.attention.self",
    linears={
        "attention.query": "encoder.layer.{}.attention.self.query",
        "attention.key": "encoder.layer.{}.attention.self.key",
        "attention.value": "encoder.layer.{}.attention.self.value",
        "attention.dense": "encoder.layer.{}.attention.output.dense",
        "ffn.intermediate": "encoder.layer.{}.intermediate.dense",
        "ffn.dense": "encoder.layer.{}.output.dense",
    },
    hidden="encoder.layer.{}.intermediate",
    outputs={"attention.output": "encoder.layer.{}.attention.output", "ffn.output": "encoder.layer.{}.output"},
    dropout="dropout",
    norm="LayerNorm",
    position_offset=0,
)
# Maps whose output dropout, residual and LayerNorm follow.
TO_RESIDUAL: tuple[Site, ...] = ("attention.dense", "ffn.dense")
FAMILIES = {"bert": BERT, "roberta": replace(BERT, model="RobertaModel", position_offset=2)}


class Pass(Attending, Protocol):
    """What happens to the rows at each place during one forward pass; all h are [1, n, width].

    n is N, or fewer from the last layer's queries on.
    """

    def words(self, h: Tensor) -> Tensor: ...

    def asking(self, layer: int, h: Tensor) -> Tensor:
        """Those of the layer's inputs [1, N, D] that go on from here: [1, n, D]."""

    def linear(self, layer: int, site: Site, x: Tensor, h: Tensor) -> Tensor:
        """`h` is what the frozen map makes of `x`."""

    def hidden(self, layer: int, h: Tensor) -> Tensor: ...

    def place(self, number: int, layer: int, site: Site | None, h: Tensor, residual: Tensor | None) -> Tensor:
        """A sub-layer's output before its dropout; the embeddings have no site and no residual."""

    def norm(self, number: int, h: Tensor) -> Tensor: ...


class Backbone:
    """The encoder on a device. Place 0 is the embeddings; places 2 l + 1 and 2 l + 2 are the two sub-layers of layer l.

    `precision`: of matrix products; everything else is fp32.
    """

    def __init__(self, module: nn.Module, family: str, shape: Shape, precision: Precision = "fp32"):
        self.module, self.family, self.shape, self.precision = module.eval(), FAMILIES[family], shape, precision
        self._pass: Pass | None = None
        self._cache: dict[Hashable, Any] = {}
        self._residual: Tensor | None = None
        self._asking: Tensor | None = None
        # The last input of a linear map and its bf16 twin: three maps in turn read the same one.
        self._narrow: tuple[Tensor, Tensor] | None = None
        self._norms: list[nn.LayerNorm] = []
        module.requires_grad_(False)
        self._wire()

    @classmethod
    def load(cls, model: Model, device: torch.device, precision: Precision = "fp32") -> Backbone:
        """Weights in fp32 from safetensors; a BERT without a pooler in its file gets one from a fixed seed."""
        kind: Any = getattr(transformers, FAMILIES[model.family].model)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = kind.from_pretrained(
                model.path,
                add_pooling_layer=model.shape.pooler,
                attn_implementation=ATTENTION,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
            )
        assert (model.path / WEIGHTS).is_file()
        return cls(module.to(device), model.family, model.shape, precision)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def config_dropout(self) -> tuple[float, float]:
        """The pretrained model's own rates: (hidden, attention)."""
        config: Any = self.module.config
        return config.hidden_dropout_prob, config.attention_probs_dropout_prob

    @property
    def norms(self) -> Sequence[nn.LayerNorm]:
        """All LayerNorms by place number."""
        return self._norms

    @property
    def words(self) -> nn.Embedding:
        """The word embeddings."""
        module: Any = self.module.get_submodule(self.family.words)
        return module

    def map_at(self, layer: int, site: Site) -> nn.Linear:
        """The linear map whose output the site is."""
        module: Any = self.module.get_submodule(self.family.linears[site].format(layer))
        return module

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once per key in the life of this backbone."""
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def products(self) -> AbstractContextManager[object]:
        """What surrounds matrix products that have no frozen weights in them, so that they are of this precision too."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def pooled(self, first: Tensor) -> Tensor:
        """What the model's own head reads, from last hidden states of first tokens [K, E, D]."""
        if not self.shape.pooler:
            return first
        pooler: Any = self.module.pooler
        return torch.tanh(pooler.dense(first))

    def states(self, running: Pass) -> Tensor:
        """Last hidden states [1, n, D]."""
        self._pass, rows = running, running.rows
        try:
            hidden: Tensor = self.module(
                input_ids=rows.input_ids,
                token_type_ids=rows.token_types,
                position_ids=rows.positions + self.family.position_offset,
                attention_mask=None,
            ).last_hidden_state
        finally:
            self._pass = self._narrow = self._residual = self._asking = None
        return hidden

    def _wire(self) -> None:
        family, get = self.family, self.module.get_submodule
        get(family.words).register_forward_hook(lambda module, args, h: self._pass.words(h) if self._pass else h)
        self._wire_output(0, 0, None, family.embeddings)
        for layer in range(self.shape.layers):
            for site, path in family.linears.items():
                linear: Any = get(path.format(layer))
                linear.forward = partial(self._linear, linear, layer, site)
            attention: Any = get(family.attention.format(layer))
            attention.forward = partial(self._attend, attention, layer)
            get(family.hidden.format(layer)).register_forward_hook(partial(self._hidden, layer))
            for i, (site, path) in enumerate(family.outputs.items()):
                self._wire_output(2 * layer + 1 + i, layer, site, path.format(layer))

    def _wire_output(self, number: int, layer: int, site: Site | None, path: str) -> None:
        parent = self.module.get_submodule(path)
        norm: Any = parent.get_submodule(self.family.norm)
        self._norms.append(norm)
        norm.forward = partial(self._norm, norm, number)
        if site is not None:
            parent.register_forward_pre_hook(self._note_residual)
        parent.get_submodule(self.family.dropout).register_forward_hook(partial(self._place, number, layer, site))

    def _note_residual(self, module: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """After attention only those go on that asked."""
        h, self._residual = args[0], args[1] if self._asking is None else self._asking
        self._asking = None
        return h, self._residual

    def _attend(self, attention: Any, layer: int, hidden: Tensor, **_: Any) -> tuple[Tensor, None]:
        assert self._pass, "rows are packed, and only a pass knows where examples end"
        key, value = attention.key(hidden), attention.value(hidden)
        self._asking = self._pass.asking(layer, hidden)
        query = attention.query(self._asking)
        return attend(self._pass, layer, self.shape.heads, query, key, value), None

    def _linear(self, linear: nn.Linear, layer: int, site: Site, x: Tensor) -> Tensor:
        h = self._product(linear, x, to_residual=site in TO_RESIDUAL)
        return self._pass.linear(layer, site, x, h) if self._pass else h

    def _product(self, linear: nn.Linear, x: Tensor, to_residual: bool) -> Tensor:
        """In bf16 only what goes to the residual stream is widened: what other products read next stays as they read it."""
        if self.precision == "fp32":
            return F.linear(x, linear.weight, linear.bias)
        if self._narrow is None or self._narrow[0] is not x:
            self._narrow = (x, x.bfloat16())
        weight, bias = self._narrow_weights(linear)
        h = F.linear(self._narrow[1], weight, bias)
        return h.float() if to_residual else h

    def _narrow_weights(self, linear: nn.Linear) -> tuple[Tensor, Tensor]:
        """bf16 twins: cast once where frozen, in every pass where they are being trained."""
        if linear.weight.requires_grad or linear.bias.requires_grad:
            return linear.weight.bfloat16(), linear.bias.bfloat16()
        return self.once(linear, lambda: (linear.weight.bfloat16(), linear.bias.bfloat16()))

    def _hidden(self, layer: int, module: nn.Module, args: Any, h: Tensor) -> Tensor:
        return self._pass.hidden(layer, h) if self._pass else h

    def _place(self, number: int, layer: int, site: Site | None, module: nn.Module, args: Any, h: Tensor) -> Tensor:
        return self._pass.place(number, layer, site, h, self._residual) if self._pass else h

    def _norm(self, norm: nn.LayerNorm, number: int, h: Tensor) -> Tensor:
        if self._pass is None:
            return F.layer_norm(h, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return self._pass.norm(number, h)
