"""The methods: one file and one line each."""

from trainables.methods.adalora import AdaLoRA
from trainables.methods.adapter import Adapter
from trainables.methods.contract import Method
from trainables.methods.dora import DoRA
from trainables.methods.dylora import DyLoRA
from trainables.methods.full import Full
from trainables.methods.lora import LoRA
from trainables.methods.madapter import MAdapter
from trainables.methods.pissa import PiSSA
from trainables.methods.rslora import RsLoRA
from trainables.methods.sparse_adapter import SparseAdapter
from trainables.methods.vera import VeRA

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "adapter": Adapter,
    "sparse_adapter": SparseAdapter,
    "madapter": MAdapter,
    "lora": LoRA,
    "rslora": RsLoRA,
    "dora": DoRA,
    "pissa": PiSSA,
    "vera": VeRA,
    "adalora": AdaLoRA,
    "dylora": DyLoRA,
}
