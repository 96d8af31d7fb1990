"""Counts are sums over declared parameters; the numbers here come from a closed formula per method, written by hand."""

import pytest

from trainables.backbone.models import KNOWN_CONFIGS, shape_of
from trainables.methods import METHODS
from trainables.training.parameter_counts import build, count

BERT, ROBERTA = (shape_of(KNOWN_CONFIGS[name]) for name in ("bert-base-uncased", "roberta-base"))

# Weights and module numbers of each method with its default settings, on BERT-base.
BY_HAND = {
    "full": (109_360_128, 109_482_240),
    "top_layers": (14_745_600, 14_766_336),
    "layer_norm": (0, 0),
    "linear_probe": (0, 0),
    "adapter": (2_359_296, 2_379_264),
    "houlsby_variant": (2_359_296, 2_416_128),
    "pfeiffer": (884_736, 894_528),
    "parallel": (1_179_648, 1_189_632),
    "adapter_drop": (516_096, 521_808),
    "adapter_drop_robust": (884_736, 894_528),
    "sparse_adapter": (1_415_577, 1_435_545),
    "madapter": (1_204_224, 1_224_192),
    "compacter": (38_080, 57_088),
    "compacter_pp": (19_072, 28_576),
    "lora": (294_912, 294_912),
    "rslora": (294_912, 294_912),
    "dora": (294_912, 313_344),
    "pissa": (294_912, 294_912),
    "vera": (0, 24_576),
    "adalora": (442_368, 442_656),
    "dylora": (294_912, 294_912),
    "lora_fa": (294_912, 294_912),
    "lora_plus": (294_912, 294_912),
    "loha": (589_824, 589_824),
    "lokr": (26_112, 26_112),
    "miss": (294_912, 294_912),
    "vb_lora": (213_120, 213_120),
    "c3a": (221_184, 221_184),
    "oft": (285_696, 285_696),
    "hra": (147_456, 147_456),
    "road": (0, 82_944),
    "ia3": (0, 55_296),
    "bitfit": (0, 82_944),
    "bitfit_small": (0, 46_080),
    "prefix": (368_640, 368_640),
    "prefix_mlp": (9_845_760, 9_864_704),
    "p_tuning_v2": (368_640, 368_640),
    "prompt_tuning": (15_360, 15_360),
    "adaption_prompt": (15_360, 15_384),
    "threshold_mask": (85_524_480, 85_524_480),
    "fish_mask": (547_411, 547_411),
    "lt_sft": (109_360_128, 109_482_240),
    "diff_pruning": (218_720_256, 218_964_679),
    "child_tuning_f": (109_360_128, 109_482_240),
    "child_tuning_d": (49_941_811, 49_944_115),
    "mam": (589_824, 599_232),
    "unipelt": (1_400_832, 1_410_672),
    "propetl": (1_277_952, 1_278_784),
}
# The same on RoBERTa-base, for methods whose parameters are the backbone's own.
BY_HAND_ON_ROBERTA = {
    "full": (123_933_696, 124_055_040),
    "top_layers": (14_155_776, 14_175_744),
    "threshold_mask": (84_934_656, 84_934_656),
    "fish_mask": (620_275, 620_275),
    "lt_sft": (123_933_696, 124_055_040),
    "diff_pruning": (247_867_392, 248_110_277),
    "child_tuning_f": (123_933_696, 124_055_040),
    "child_tuning_d": (64_515_379, 64_516_915),
}


def test_every_method_has_a_number_by_hand():
    assert set(BY_HAND) == set(METHODS)


@pytest.mark.parametrize("method", BY_HAND)
def test_declared_parameters_add_up_to_what_a_formula_by_hand_says(method):
    built = build(method, {})
    for shape, expected in ((BERT, BY_HAND[method]), (ROBERTA, BY_HAND_ON_ROBERTA.get(method, BY_HAND[method]))):
        assert built.counts(shape) == expected


def test_what_a_mask_removes_is_not_counted():
    dense, sparse = (count(build("sparse_adapter", {"r": 64, "sparsity": s}), BERT, 2) for s in (0.0, 0.4))
    assert dense.weights == 2 * 768 * 64 * 24
    assert sparse.weights == int(0.6 * dense.weights)
    assert dense.module - dense.weights == sparse.module - sparse.weights


def test_a_mask_that_keeps_a_share_of_each_matrix_rounds_in_each():
    sparse = count(build("sparse_adapter", {"r": 1, "sparsity": 0.71, "score": "er"}), BERT, 2)
    assert sparse.weights == 48 * int(0.29 * 768)


def test_running_statistics_are_no_trained_parameters():
    norm, plain = (count(build("houlsby_variant", {"r": 8, "variant": v}), BERT, 2) for v in ("batch_norm", "tanh"))
    assert norm.module == plain.module + 24 * 2 * 8
