"""The methods: one file and one line each."""

from trainables.methods.adapter import Adapter
from trainables.methods.adaption_prompt import AdaptionPrompt
from trainables.methods.bitfit import BitFit, BitFitSmall
from trainables.methods.contract import Method
from trainables.methods.full import Full
from trainables.methods.ia3 import IA3
from trainables.methods.layer_norm import LayerNormOnly
from trainables.methods.linear_probe import LinearProbe
from trainables.methods.madapter import MAdapter
from trainables.methods.mam import MAM
from trainables.methods.prefix import Prefix, PrefixMLP, PTuningV2
from trainables.methods.prompt_tuning import PromptTuning
from trainables.methods.sparse_adapter import SparseAdapter
from trainables.methods.unipelt import UniPELT

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "layer_norm": LayerNormOnly,
    "linear_probe": LinearProbe,
    "adapter": Adapter,
    "sparse_adapter": SparseAdapter,
    "madapter": MAdapter,
    "ia3": IA3,
    "bitfit": BitFit,
    "bitfit_small": BitFitSmall,
    "prefix": Prefix,
    "prefix_mlp": PrefixMLP,
    "p_tuning_v2": PTuningV2,
    "prompt_tuning": PromptTuning,
    "adaption_prompt": AdaptionPrompt,
    "mam": MAM,
    "unipelt": UniPELT,
}
