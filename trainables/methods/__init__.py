"""The methods by the name that spaces use for them. Every method has a file of its own and one line in `METHODS`.

Methods of other packages are added to them (`search_spaces/plugins.py`). Rows of the library peft are not among them.
"""

from search_spaces.plugins import with_plugins
from trainables.methods.adalora import AdaLoRA
from trainables.methods.adapter import Adapter
from trainables.methods.adapter_drop import AdapterDrop, AdapterDropRobust
from trainables.methods.adaption_prompt import AdaptionPrompt
from trainables.methods.base import Method, method_class
from trainables.methods.bitfit import BitFit, BitFitSmall
from trainables.methods.c3a import C3A
from trainables.methods.child_tuning import ChildTuningD, ChildTuningF
from trainables.methods.compacter import Compacter, CompacterPlusPlus
from trainables.methods.diff_pruning import DiffPruning
from trainables.methods.dora import DoRA
from trainables.methods.dylora import DyLoRA
from trainables.methods.fish_mask import FishMask
from trainables.methods.full import Full
from trainables.methods.houlsby_variant import HoulsbyVariant
from trainables.methods.hra import HRA
from trainables.methods.ia3 import IA3
from trainables.methods.layer_norm import LayerNormOnly
from trainables.methods.linear_probe import LinearProbe
from trainables.methods.loha import LoHa
from trainables.methods.lokr import LoKr
from trainables.methods.lora import LoRA
from trainables.methods.lora_fa import LoRAFA
from trainables.methods.lora_plus import LoRAPlus
from trainables.methods.lt_sft import LtSft
from trainables.methods.madapter import MAdapter
from trainables.methods.mam import MAM
from trainables.methods.miss import MiSS
from trainables.methods.oft import OFT
from trainables.methods.parallel import Parallel
from trainables.methods.pfeiffer import Pfeiffer
from trainables.methods.pissa import PiSSA
from trainables.methods.prefix import Prefix, PrefixMLP, PTuningV2
from trainables.methods.prompt_tuning import PromptTuning
from trainables.methods.propetl import ProPETL
from trainables.methods.road import RoAd
from trainables.methods.rslora import RsLoRA
from trainables.methods.sparse_adapter import SparseAdapter
from trainables.methods.threshold_mask import ThresholdMask
from trainables.methods.top_layers import TopLayers
from trainables.methods.unipelt import UniPELT
from trainables.methods.vb_lora import VBLoRA
from trainables.methods.vera import VeRA

METHODS: dict[str, type[Method]] = with_plugins(
    "methods",
    {
        "full": Full,
        "top_layers": TopLayers,
        "layer_norm": LayerNormOnly,
        "linear_probe": LinearProbe,
        "adapter": Adapter,
        "houlsby_variant": HoulsbyVariant,
        "pfeiffer": Pfeiffer,
        "parallel": Parallel,
        "adapter_drop": AdapterDrop,
        "adapter_drop_robust": AdapterDropRobust,
        "sparse_adapter": SparseAdapter,
        "madapter": MAdapter,
        "compacter": Compacter,
        "compacter_pp": CompacterPlusPlus,
        "lora": LoRA,
        "rslora": RsLoRA,
        "dora": DoRA,
        "pissa": PiSSA,
        "vera": VeRA,
        "adalora": AdaLoRA,
        "dylora": DyLoRA,
        "lora_fa": LoRAFA,
        "lora_plus": LoRAPlus,
        "loha": LoHa,
        "lokr": LoKr,
        "miss": MiSS,
        "vb_lora": VBLoRA,
        "c3a": C3A,
        "oft": OFT,
        "hra": HRA,
        "ia3": IA3,
        "road": RoAd,
        "bitfit": BitFit,
        "bitfit_small": BitFitSmall,
        "prefix": Prefix,
        "prefix_mlp": PrefixMLP,
        "p_tuning_v2": PTuningV2,
        "prompt_tuning": PromptTuning,
        "adaption_prompt": AdaptionPrompt,
        "threshold_mask": ThresholdMask,
        "fish_mask": FishMask,
        "lt_sft": LtSft,
        "diff_pruning": DiffPruning,
        "child_tuning_f": ChildTuningF,
        "child_tuning_d": ChildTuningD,
        "mam": MAM,
        "unipelt": UniPELT,
        "propetl": ProPETL,
    },
    method_class,
)
