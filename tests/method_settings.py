"""Small settings of every method for tiny encoders, and what each needs to learn a made-up task within seconds."""

SMALL = {
    "full": {},
    "top_layers": {"k": 1},
    "layer_norm": {},
    "linear_probe": {},
    "adapter": {"r": 4},
    "houlsby_variant": {"r": 4, "variant": "batch_norm"},
    "pfeiffer": {"r": 4},
    "parallel": {"r": 4, "beside": "both", "scale": "learned"},
    "adapter_drop": {"r": 4, "dropped": 1},
    "adapter_drop_robust": {"r": 4},
    "sparse_adapter": {"r": 4},
    "madapter": {"r": 4, "n_mid": 2},
    "compacter": {"r": 4},
    "compacter_pp": {"r": 4, "n": 2},
    "lora": {"r": 4},
    "rslora": {"r": 4, "targets": "all"},
    "dora": {"r": 4},
    "pissa": {"r": 4},
    "vera": {"r": 16, "targets": "all"},
    "adalora": {"r": 6, "target": 2},
    "dylora": {"r": 4},
    "ia3": {},
    "bitfit": {},
    "bitfit_small": {},
    "prefix": {"length": 3},
    "prefix_mlp": {"length": 3, "mlp": 16},
    "p_tuning_v2": {"length": 4},
    "prompt_tuning": {"length": 5},
    "adaption_prompt": {"layers": 2, "length": 3},
    "threshold_mask": {},
    "fish_mask": {"keep": 0.1, "examples": 20},
    "lt_sft": {"keep": 0.1},
    "diff_pruning": {"keep": 0.1},
    "child_tuning_f": {},
    "child_tuning_d": {},
    "mam": {"length": 2, "r": 4},
    "unipelt": {"length": 3, "r": 4, "rank": 2},
    "propetl": {"r": 4},
}
# Where the usual peak learning rate of 3e-3 will not do. (The probe's head of seed 1 happens to start well.)
LEARNS = {
    "linear_probe": {"lr": 3e-2, "seed": 2},
    "adapter_drop": {"lr": 1e-2},
    "compacter": {"lr": 1e-2},
    "compacter_pp": {"lr": 1e-2},
    "vera": {"lr": 1e-2},
    "adalora": {"lr": 1e-2},
    "prefix": {"lr": 5e-2},
    "p_tuning_v2": {"lr": 5e-2},
    "prompt_tuning": {"lr": 5e-2},
    "adaption_prompt": {"lr": 5e-2},
    "propetl": {"lr": 1e-2},
}


def learning(method: str) -> dict:
    """Keyword arguments for `make_trial` with which this method learns."""
    return {"lr": 3e-3, **LEARNS.get(method, {}), **SMALL[method]}
