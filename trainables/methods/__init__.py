"""The methods: one file and one line each."""

from trainables.methods.adalora import AdaLoRA
from trainables.methods.adapter import Adapter
from trainables.methods.adapter_drop import AdapterDrop, AdapterDropRobust
from trainables.methods.compacter import Compacter, CompacterPlusPlus
from trainables.methods.contract import Method
from trainables.methods.dora import DoRA
from trainables.methods.dylora import DyLoRA
from trainables.methods.full import Full
from trainables.methods.houlsby_variant import HoulsbyVariant
from trainables.methods.lora import LoRA
from trainables.methods.madapter import MAdapter
from trainables.methods.parallel import Parallel
from trainables.methods.pfeiffer import Pfeiffer
from trainables.methods.pissa import PiSSA
from trainables.methods.propetl import ProPETL
from trainables.methods.rslora import RsLoRA
from trainables.methods.sparse_adapter import SparseAdapter
from trainables.methods.vera import VeRA

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "adapter": Adapter,
    "houlsby_variant": HoulsbyVariant,
    "pfeiffer": Pfeiffer,
    "parallel": Parallel,
    "adapter_drop": AdapterDrop,
    "adapter_drop_robust": AdapterDropRobust,
    "sparse_adapter": SparseAdapter,
    "madapter": MAdapter,
    "lora": LoRA,
    "rslora": RsLoRA,
    "dora": DoRA,
    "pissa": PiSSA,
    "vera": VeRA,
    "adalora": AdaLoRA,
    "dylora": DyLoRA,
    "compacter": Compacter,
    "compacter_pp": CompacterPlusPlus,
    "propetl": ProPETL,
}
