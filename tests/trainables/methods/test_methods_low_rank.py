"""The low-rank family: counts, logits and gradients against peft, starts."""

from dataclasses import replace

import peft
import pytest
import torch

from benchmarks.arms import Fused, make_data, make_trials
from benchmarks.operators import count
from search_spaces.dimensions import Choice, grid
from tests.fixtures.low_rank import CPU, FAMILY, ON_MAPS, eval_inputs_of, prepare
from tests.fixtures.method_settings import SMALL
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import KNOWN_CONFIGS, shape_of
from trainables.methods import METHODS
from trainables.training.parameter_counts import build
from trainables.training.parameter_counts import count as count_parameters

# Reference numbers: methods.md 1.5 and the cards, head excluded.
EXPECTED = [
    ("lora", {"r": 8}, 294_912, 294_912),
    ("lora", {"r": 1}, 36_864, 36_864),
    ("lora", {"r": 64}, 2_359_296, 2_359_296),
    ("lora", {"r": 8, "targets": "all"}, 1_327_104, 1_327_104),
    ("rslora", {"r": 8}, 294_912, 294_912),
    ("pissa", {"r": 8}, 294_912, 294_912),
    ("dylora", {"r": 8}, 294_912, 294_912),
    ("dora", {"r": 8}, 294_912, 313_344),
    ("vera", {"r": 256}, 0, 24_576),
    ("vera", {"r": 1024}, 0, 43_008),
    ("adalora", {"r": 12}, 442_368, 442_656),
]


def test_rslora_keeps_alpha_over_ranks_and_lora_its_ratio():
    """The paper's scale alpha / sqrt(r) falls with the rank; with alpha = 2 r it would rise."""
    scales = [build("rslora", {"r": r}).scale for r in (4, 8, 16, 64)]
    assert scales == pytest.approx([8.0, 16 / 8**0.5, 4.0, 2.0])
    assert build("rslora", {"r": 16, "alpha": 32}).scale == 8.0
    assert {build("lora", {"r": r}).scale for r in (4, 8, 16, 64)} == {2.0}


@pytest.mark.parametrize(("method", "settings", "weights", "module"), EXPECTED)
def test_counts_on_base_encoders_are_the_published_ones(method, settings, weights, module):
    for name in ("bert-base-uncased", "roberta-base"):
        shape = shape_of(KNOWN_CONFIGS[name])
        counts = count_parameters(build(method, settings, shape), shape, 2)
        assert (counts.weights, counts.module) == (weights, module)
        assert counts.trained == module + shape.head(2)


def test_adalora_stores_the_triplets_of_its_target():
    shape = shape_of(KNOWN_CONFIGS["roberta-base"])
    assert build("adalora", {"r": 12, "target": 8}, shape).stored(shape).values == 295_104


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("lora", {"r": 0}, "r = 0: must be a whole number between 1 and 768"),
        ("lora", {"r": 769}, "the backbone's width"),
        ("lora", {"alpha": 0}, "alpha = 0: must be a number between"),
        ("lora", {"targets": "kv"}, "targets = 'kv': must be one of qv, all"),
        ("vera", {"r": 0}, "r = 0"),
        ("adalora", {"r": 4, "target": 5}, "target = 5: must be a whole number between 1 and 4"),
        ("adalora", {"tinit": 0.6, "tfinal": 0.6}, r"tinit \+ tfinal"),
        ("adalora", {"every": 0}, "every = 0"),
        ("dylora", {"frozen": "yes"}, "frozen = 'yes': must be True or False"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(method, settings, message):
    with pytest.raises(ValueError, match=message):
        build(method, settings, shape_of(KNOWN_CONFIGS["roberta-base"]))


@pytest.mark.parametrize("method", [*FAMILY, *ON_MAPS])
def test_every_point_of_the_search_is_a_valid_setting(method):
    search = METHODS[method].search
    assert isinstance(search["lr"], Choice)
    assert len(search["lr"].values) == 4
    for point in grid({key: dimension for key, dimension in search.items() if key != "lr"}):
        build(method, point, shape_of(KNOWN_CONFIGS["bert-base-uncased"]))


QUERY_VALUE = ["query", "value"]
ALL = r".*encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|attention\.output\.dense|intermediate\.dense|output\.dense)"
MODULES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.dense": "attention.output.dense",
    "ffn.intermediate": "intermediate.dense",
    "ffn.dense": "output.dense",
}


def parts_of(site_module, method):
    """peft's parameters of one map by our names, each with how ours turns into theirs."""
    if method == "vera":
        return {"inner": site_module.vera_lambda_d["default"], "outer": site_module.vera_lambda_b["default"]}
    if method == "adalora":
        singular = site_module.lora_E["default"]
        return {"down": site_module.lora_A["default"], "up": site_module.lora_B["default"], "singular": singular}
    parts = {"down": site_module.lora_A["default"].weight, "up": site_module.lora_B["default"].weight}
    if method == "dora":
        parts["magnitude"] = site_module.lora_magnitude_vector["default"].weight
    return parts


def maps_of(model, layers):
    """peft's layers by the names of our sites."""
    for layer in range(layers):
        for site, path in MODULES.items():
            module = model.base_model.model.encoder.layer[layer].get_submodule(path)
            if hasattr(module, "base_layer"):
                yield f"{layer}.{site}", module


def as_theirs(name, tensor):
    return tensor.reshape(-1, 1) if name == "singular" else tensor.T if tensor.ndim > 1 else tensor


def copy_to(model, prepared, method):
    """Our values into peft's model, and every one of them: nothing of the method's own is left over."""
    ours, used = prepared.entries(prepared.parameters.values), set()
    for site, module in maps_of(model, prepared.backbone.shape.layers):
        for name, parameter in parts_of(module, method).items():
            parameter.data.copy_(as_theirs(name, ours[f"{site}.{name}"]))
            used.add(f"{site}.{name}")
    assert used == {name for name in ours if not name.startswith("head.")}


LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
CASES = {
    "lora": ("lora", {"r": 4}, lambda m: peft.LoraConfig(**LORA, target_modules=m)),
    "lora alpha": ("lora", {"r": 4, "alpha": 3.0}, lambda m: peft.LoraConfig(r=4, lora_alpha=3, target_modules=m)),
    "rslora": ("rslora", {"r": 4}, lambda m: peft.LoraConfig(r=4, lora_alpha=16, use_rslora=True, target_modules=m)),
    "dora": ("dora", {"r": 4}, lambda m: peft.LoraConfig(**LORA, use_dora=True, target_modules=m)),
    "pissa": (
        "pissa",
        {"r": 4},
        lambda m: peft.LoraConfig(r=4, lora_alpha=4, init_lora_weights="pissa", target_modules=m),
    ),
    "pissa alpha": (
        "pissa",
        {"r": 4, "alpha": 8},
        lambda m: peft.LoraConfig(**LORA, init_lora_weights="pissa", target_modules=m),
    ),
    "vera": ("vera", {"r": 16}, lambda m: peft.VeraConfig(r=16, vera_dropout=0.0, target_modules=m)),
    "adalora": (
        "adalora",
        {"r": 4, "target": 2},
        lambda m: peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=8, total_step=20, target_modules=m),
    ),
}


@pytest.mark.parametrize("targets", ["qv", "all"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_logits_and_gradients_are_pefts(family, case, targets, request):
    method, settings, config = CASES[case]
    stir = 0.3 if targets == "qv" else 0.12  # far from the start, but not where single precision is lost in two layers
    prepared = prepare(request.getfixturevalue(family), method, stir, targets=targets, **settings)
    bare = prepared.theirs(prepared.plain)
    model = peft.get_peft_model(prepared.plain, config(QUERY_VALUE if targets == "qv" else ALL)).eval()
    copy_to(model, prepared, method)
    if method == "vera":
        for module in (module for _, module in maps_of(model, 2)):
            for buffers, name in ((module.vera_A, "down"), (module.vera_B, "up")):
                assert buffers["default"].shape == prepared.parameters.constants[name].T.shape
                buffers["default"] = prepared.parameters.constants[name].T
    logits, loss = prepared.run()
    theirs = prepared.theirs(model)
    assert (logits - bare).abs().max() > 1e-2
    assert torch.allclose(logits, theirs, atol=1e-5)

    their_loss = prepared.loss_of(theirs)
    if method == "adalora":
        their_loss = their_loss + 0.5 * orthogonality(model)
    loss.backward()
    their_loss.backward()
    assert float(loss.detach()) == pytest.approx(float(their_loss.detach()), abs=1e-5)
    ours = prepared.entries(prepared.parameters.leaf.grad)
    for site, module in maps_of(model, 2):
        for name, parameter in parts_of(module, method).items():
            grad = as_theirs(name, ours[f"{site}.{name}"])
            assert grad.abs().max() > 0
            assert torch.allclose(grad, parameter.grad, atol=1e-5, rtol=1e-4), f"{site}.{name}"


def orthogonality(model):
    """peft's term, which it adds where the model itself returns a loss."""
    terms = []
    for _, module in maps_of(model, 2):
        a, b = module.lora_A["default"], module.lora_B["default"]
        terms += [torch.norm(a @ a.T - torch.eye(len(a))), torch.norm(b.T @ b - torch.eye(len(a)))]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("targets", ["qv", "all"])
@pytest.mark.parametrize("method", FAMILY)
def test_the_start_is_the_frozen_model(method, targets, tiny_bert, tiny_roberta):
    for model in (tiny_bert, tiny_roberta):
        prepared = prepare(model, method, stir=0.0, targets=targets)
        assert torch.allclose(prepared.run(eval_inputs_of(prepared))[0], prepared.theirs(prepared.plain), atol=3e-6)


@pytest.mark.parametrize(("method", "kind"), [("lora", True), ("pissa", "pissa")])
def test_starts_are_drawn_as_peft_draws_them(method, kind, tiny_bert):
    """LoRA's bound, which thousands of draws fill; PiSSA's factors up to the sign of each triplet."""
    prepared = prepare(tiny_bert, method, stir=0.0, r=16)
    config = peft.LoraConfig(r=16, lora_alpha=16, init_lora_weights=kind, target_modules=QUERY_VALUE)
    torch.manual_seed(0)
    model = peft.get_peft_model(prepared.plain, config)
    ours = prepared.entries(prepared.parameters.values)
    for site, module in maps_of(model, 2):
        down, up = (module.get_submodule(f"lora_{x}").default.weight for x in "AB")
        if method == "pissa":
            assert torch.allclose(ours[f"{site}.down"].abs(), down.T.abs(), atol=1e-4)
            assert torch.allclose(ours[f"{site}.down"] @ ours[f"{site}.up"], (up @ down).T, atol=1e-5)
        else:
            assert float(ours[f"{site}.down"].abs().max()) == pytest.approx(float(down.detach().abs().max()), rel=0.02)
            assert not ours[f"{site}.up"].any()


def test_only_matrices_are_decayed_and_no_magnitude(tiny_bert):
    for method in FAMILY:
        layout = prepare(tiny_bert, method).parameters.layout
        decayed = {e.name.rpartition(".")[2] for e in layout.entries if e.decayed and not e.name.startswith("head.")}
        assert decayed == (set() if method == "vera" else {"down", "up"})


@pytest.mark.parametrize("method", [*FAMILY, *ON_MAPS])
def test_operators_of_a_step_do_not_grow_with_the_trials(method, tiny_bert):
    """From two trials on: a batched product of one trial may do without a copy of its factor."""
    data = make_data([10] * 32, vocabulary=200)
    numbers = []
    for K in (2, 4):
        trials = [replace(trial, settings=SMALL[method]) for trial in make_trials(K, r=8, method=method)]
        numbers.append(count(Fused(Backbone.load(tiny_bert, CPU), trials, data).step))
    assert numbers[0] == numbers[1]
