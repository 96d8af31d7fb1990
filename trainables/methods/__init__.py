"""The methods: one file and one line each."""

from trainables.methods.adapter import Adapter
from trainables.methods.contract import Method
from trainables.methods.full import Full
from trainables.methods.madapter import MAdapter
from trainables.methods.sparse_adapter import SparseAdapter

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "adapter": Adapter,
    "sparse_adapter": SparseAdapter,
    "madapter": MAdapter,
}
