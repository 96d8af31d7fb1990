"""The methods: one file and one line each."""

from trainables.methods.adapter import Adapter
from trainables.methods.adapter_drop import AdapterDrop, AdapterDropRobust
from trainables.methods.compacter import Compacter, CompacterPlusPlus
from trainables.methods.contract import Method
from trainables.methods.full import Full
from trainables.methods.houlsby_variant import HoulsbyVariant
from trainables.methods.madapter import MAdapter
from trainables.methods.parallel import Parallel
from trainables.methods.pfeiffer import Pfeiffer
from trainables.methods.propetl import ProPETL
from trainables.methods.sparse_adapter import SparseAdapter

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
    "compacter": Compacter,
    "compacter_pp": CompacterPlusPlus,
    "propetl": ProPETL,
}
