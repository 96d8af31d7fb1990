"""Variable fine-tuning: only the k highest layers of the encoder and the head are trained (Houlsby et al. 2019, section 3.2).

    y = head(pooler(layer_L(... layer_(L-k+1)(h))));    h, the output of the embeddings and the lower layers, is not trained

All weights, biases and LayerNorms of those layers are trained, and so is BERT's pooler, which follows them. With k = L the
embeddings are still frozen, so it differs from full fine-tuning. Trap: the frozen lower layers need no gradient, but dropout is
applied in them in training, as for all other methods here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.backbone_weights import WeightMethod
from trainables.methods.initializers import FROZEN
from trainables.methods.spec import BackboneTensor, MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int


@dataclass(frozen=True, kw_only=True)
class TopLayers(WeightMethod):
    """`k`: number of trained layers, counted from the top."""

    title: ClassVar[str] = "Top layers"
    paper: ClassVar[str] = "Houlsby et al. 2019"
    family: ClassVar[MethodFamily] = "freezing"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4), "k": choice(1, 2, 3, 5)}
    example: ClassVar[Mapping[str, Scalar]] = {"k": 1}

    k: int = 2

    def check(self, shape: Shape | None) -> None:
        require_int("k", self.k, 1, shape.layers if shape else 1024, "the backbone's layers")

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        in_top_layers = tensor.layer is not None and tensor.layer >= shape.layers - self.k
        trained = in_top_layers or tensor.part == "pooler"
        return {"": Parameter(shape=tensor.shape, init=FROZEN)} if trained else {}
