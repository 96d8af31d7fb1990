"""The methods: one file and one line each."""

from trainables.methods.adapter import Adapter
from trainables.methods.child_tuning import ChildTuningD, ChildTuningF
from trainables.methods.contract import Method
from trainables.methods.diff_pruning import DiffPruning
from trainables.methods.fish_mask import FishMask
from trainables.methods.full import Full
from trainables.methods.lt_sft import LtSft
from trainables.methods.madapter import MAdapter
from trainables.methods.sparse_adapter import SparseAdapter
from trainables.methods.threshold_mask import ThresholdMask
from trainables.methods.top_layers import TopLayers

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "top_layers": TopLayers,
    "adapter": Adapter,
    "sparse_adapter": SparseAdapter,
    "madapter": MAdapter,
    "threshold_mask": ThresholdMask,
    "fish_mask": FishMask,
    "lt_sft": LtSft,
    "diff_pruning": DiffPruning,
    "child_tuning_f": ChildTuningF,
    "child_tuning_d": ChildTuningD,
}
