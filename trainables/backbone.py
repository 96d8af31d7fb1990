"""A frozen Hugging Face encoder and the named places in it where trials act.

The model files stay untouched: hooks on the dropout modules and the forwards of the LayerNorms call back into the `Pass` of the
moment, which knows whose rows are whose. The encoder itself is always in evaluation mode; dropout is drawn per trial.

Legend: K slots, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from trainables.methods.contract import Shape, Site
from trainables.models import WEIGHTS, Model
from trainables.packing import ATTENTION, Rows


@dataclass(frozen=True, kw_only=True)
class Family:
    """The site map of a model family: generic place -> attribute path, `{}` the layer's number."""

    model: str
    embeddings: str
    sites: dict[Site, str]
    dropout: str
    norm: str
    # What transformers adds to positions: RoBERTa counts from the padding index + 1.
    position_offset: int


BERT = Family(
    model="BertModel",
    embeddings="embeddings",
    sites={"attention.output": "encoder.layer.{}.attention.output", "ffn.output": "encoder.layer.{}.output"},
    dropout="dropout",
    norm="LayerNorm",
    position_offset=0,
)
FAMILIES = {"bert": BERT, "roberta": replace(BERT, model="RobertaModel", position_offset=2)}


class Pass(Protocol):
    """What happens to the rows at each place during one forward pass."""

    attention_dropout: Callable[[int], Tensor | None] | None

    def place(self, number: int, layer: int, site: Site | None, h: Tensor) -> Tensor: ...

    def norm(self, number: int, h: Tensor) -> Tensor: ...


class Backbone:
    """The encoder on a device. Place 0 is the embeddings; places 2 l + 1 and 2 l + 2 are the two sub-layers of layer l."""

    def __init__(self, module: nn.Module, family: str, shape: Shape):
        self.module, self.family, self.shape = module.eval(), FAMILIES[family], shape
        self._pass: Pass | None = None
        module.requires_grad_(False)
        self._wire(0, 0, None, self.family.embeddings)
        for layer in range(shape.layers):
            for i, (site, path) in enumerate(self.family.sites.items()):
                self._wire(2 * layer + 1 + i, layer, site, path.format(layer))

    @classmethod
    def load(cls, model: Model, device: torch.device) -> Backbone:
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
        return cls(module.to(device), model.family, model.shape)

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

    def first_tokens(self, rows: Rows, running: Pass) -> Tensor:
        """Last hidden states of each example's first token, pooled on BERT: [K, E, D]."""
        self._pass = running
        try:
            hidden = self.module(
                input_ids=rows.input_ids,
                token_type_ids=rows.token_types,
                position_ids=rows.positions + self.family.position_offset,
                attention_mask=None,
                rows=rows,
                dropout_of=running.attention_dropout,
            ).last_hidden_state
        finally:
            self._pass = None
        K, E = rows.first.shape
        first = hidden.reshape(-1, self.shape.width).index_select(0, rows.first.reshape(-1)).view(K, E, -1)
        if not self.shape.pooler:
            return first
        pooler: Any = self.module.pooler
        return torch.tanh(pooler.dense(first))

    def _wire(self, number: int, layer: int, site: Site | None, path: str) -> None:
        parent = self.module.get_submodule(path)
        norm: Any = parent.get_submodule(self.family.norm)
        if number == 0:
            self._norms: list[nn.LayerNorm] = []
        self._norms.append(norm)
        norm.forward = partial(self._norm, norm, number)
        parent.get_submodule(self.family.dropout).register_forward_hook(partial(self._place, number, layer, site))

    def _place(self, number: int, layer: int, site: Site | None, module: nn.Module, args: Any, h: Tensor) -> Tensor:
        return self._pass.place(number, layer, site, h) if self._pass else h

    def _norm(self, norm: nn.LayerNorm, number: int, h: Tensor) -> Tensor:
        if self._pass is None:
            return F.layer_norm(h, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return self._pass.norm(number, h)
