"""NF4: the frozen linear maps in 4 bits give what a plain backbone of the dequantised weights gives, for every method."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from search_spaces.language import Recipe
from search_spaces.quantization import BLOCK_SIZES, Nf4
from tests.fixtures.captured import fake_steps
from tests.fixtures.encoders import CONFIGS, write_tiny
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone import quantized_linear
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import resolve
from trainables.backbone.quantized_linear import QuantizedLinear
from trainables.backbone.stored_bytes import stored_bytes
from trainables.methods import METHODS
from trainables.training.engine import Engine
from trainables.training.evaluation import EvalRequest, EvalRow, row_logits
from trainables.training.training_step import backward, draw

pytest.importorskip("bitsandbytes", reason="NF4 needs bitsandbytes: pip install -e '.[nf4]'")

CPU = torch.device("cpu")
SHARING = [name for name, kind in METHODS.items() if kind.shares_backbone]
EXACT = Nf4(compute="fp32")


def quantized(model, how=EXACT):
    return Backbone.load(model, CPU, "nf4", how)


def dequantized(model, how=EXACT):
    """A plain backbone whose weights are the dequantised ones, in the precision of `how`."""
    stored, plain = quantized(model, how), Backbone.load(model, CPU, how.compute)
    for layer, site in product(range(model.shape.layers), plain.family.maps):
        weight, bias = stored.frozen(layer, site)
        linear = plain.map_at(layer, site)
        assert not torch.equal(linear.weight, weight)
        assert torch.equal(plain.frozen(layer, site)[1], bias)
        with torch.no_grad():
            linear.weight.copy_(weight)  # of a map that is a part of a module: a view of the module's
    return plain


def engine_with(backbone, trials, data=None):
    engine = Engine(backbone)
    for trial in trials:
        engine.add_trial(trial, data or make_data())
    return engine


def one_of_each(**recipe):
    return [
        make_trial(name, seed=i, recipe=Recipe(epochs=2, **recipe), **SMALL[name]) for i, name in enumerate(SHARING)
    ]


def gradients(backbone, trials):
    """Losses and gradients of the first step of all trials, with dropout, by trial."""
    engine = engine_with(backbone, trials)
    losses = backward(engine._stacks, backbone, draw(engine._stacks, backbone))
    return {
        stack.states[0].trial.method: (loss, stack.parameters.leaf.grad.clone())
        for stack, loss in zip(engine._stacks, losses, strict=True)
    }


def logits(backbone, trial):
    data = make_data()
    engine = engine_with(backbone, [trial], data)
    stack, index = engine.find(trial.id)
    request = EvalRequest(stack=stack, index=index, split=data.test)
    with torch.no_grad():
        return row_logits(backbone, [EvalRow(number=0, request=request, examples=np.arange(20), num_tokens=0)])[0]


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_outputs_are_those_of_the_dequantised_weights(family, compute, tiny_model):
    how, trial = Nf4(compute=compute), make_trial("lora", r=4, targets="all")
    found, wanted = (logits(make(tiny_model(family), how), trial) for make in (quantized, dequantized))
    # GPT-2's weights are stored transposed, for which other kernels add up products of bf16 in another order.
    off = {"fp32": 1e-6, "bf16": 1e-2}[compute] * np.abs(wanted).max()
    assert np.abs(found - wanted).max() <= off


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_every_method_gets_the_gradients_of_the_dequantised_weights(family, tiny_model):
    """DoRA, PiSSA and the adaption prompt read the frozen weights themselves."""
    model, trials = tiny_model(family), one_of_each()
    found, wanted = gradients(quantized(model), trials), gradients(dequantized(model), trials)
    assert set(found) == set(SHARING) >= {"dora", "pissa", "adaption_prompt"}
    for method, (loss, grad) in found.items():
        assert loss.tolist() == pytest.approx(wanted[method][0].tolist(), abs=1e-6), method
        assert (grad - wanted[method][1]).abs().max() <= 1e-6 * wanted[method][1].abs().max(), method


def train(backbone, trials, data):
    engine = Engine(backbone)
    states = [engine.add_trial(trial, each) for trial, each in zip(trials, data, strict=True)]
    while engine.residents:
        for state in engine.step():
            if state.done:
                engine.remove_trial(state.trial.id)
    return states


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_trial_does_not_depend_on_the_others(family, tiny_model):
    """With products in fp32, as in test_engine_equality."""
    model, recipe = tiny_model(family), Recipe(epochs=1, precision="nf4", nf4_compute="fp32")
    trials = [
        make_trial("lora", r=4, targets="all", seed=1, recipe=recipe),
        make_trial("lora", r=4, targets="all", seed=2, lr=3e-3, recipe=recipe),
        make_trial("dora", r=4, seed=3, recipe=recipe),
        make_trial("adapter", r=4, seed=4, batch_size=16, recipe=recipe),
        make_trial("linear_probe", seed=5, recipe=recipe),
    ]
    data = [make_data(seed=i) for i in range(len(trials))]
    together = train(quantized(model), trials, data)
    for trial, own, state in zip(trials, data, together, strict=True):
        (alone,) = train(quantized(model), [trial], [own])
        assert [p.loss for p in state.progress] == pytest.approx([p.loss for p in alone.progress], abs=1e-6)
        assert (state.best - alone.best).abs().max() < 1e-5


@pytest.mark.parametrize("number", [1, 5])
def test_a_step_dequantises_each_weight_twice_for_any_number_of_trials(number, tiny_model, monkeypatch):
    """Once forward and once backward; queries, keys and values of the first layer have no gradient to pass on."""
    backbone = quantized(tiny_model("bert"))
    engine = engine_with(backbone, [make_trial("lora", r=4, targets="all", seed=s) for s in range(1, number + 1)])
    calls, plain = [], QuantizedLinear.weight_in
    monkeypatch.setattr(QuantizedLinear, "weight_in", lambda self, dtype: calls.append(self) or plain(self, dtype))
    engine.step()
    maps = 6 * backbone.shape.layers
    assert len(set(calls)) == maps
    assert len(calls) == 2 * maps - 3


@pytest.mark.parametrize("make", [quantized, dequantized])
def test_the_graph_of_a_pass_holds_no_dequantised_weight(make, tiny_model):
    backbone, held = make(tiny_model("bert")), set()
    engine = engine_with(backbone, [make_trial("lora", r=4, targets="all")])
    inputs = draw(engine._stacks, backbone)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.add(tuple(t.shape)) or t, lambda t: t):
        backward(engine._stacks, backbone, inputs)
    of_feed_forward_maps = {(64, 32), (32, 64)} & held
    assert bool(of_feed_forward_maps) == (make is dequantized)


def test_grasp_differentiates_twice_through_a_quantised_weight(tiny_model):
    trial = make_trial("sparse_adapter", r=4, score="grasp", sparsity=0.5)
    masks = []
    for backbone in (quantized(tiny_model("bert")), dequantized(tiny_model("bert"))):
        stack, _ = engine_with(backbone, [trial]).find(trial.id)
        masks.append(stack.parameters.values.clone())
    assert (masks[0] == 0).any()
    assert torch.equal(*masks)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("block_size", [BLOCK_SIZES[0], 64, BLOCK_SIZES[-1]])
def test_the_bytes_of_a_backbone_are_those_that_a_plan_computes(block_size, double, tiny_model):
    for family in ("bert", "roberta", "mpnet", "phi3"):
        model, how = tiny_model(family), Nf4(block_size=block_size, double_quant=double)
        backbone, plain = quantized(model, how), Backbone.load(model, CPU)
        indices = sum(buffer.numel() * buffer.element_size() for buffer in backbone.module.buffers())
        assert plain.num_bytes == stored_bytes(model.shape, None) + indices
        assert backbone.num_bytes == stored_bytes(model.shape, how) + indices


def test_embeddings_norms_biases_and_pooler_stay_in_fp32(tiny_model):
    backbone, plain = quantized(tiny_model("bert")), Backbone.load(tiny_model("bert"), CPU)
    wanted, found = (dict(each.module.named_parameters()) for each in (plain, backbone))
    gone = set(wanted) - set(found)
    assert gone == {f"{plain.family.map_path(layer, site)}.weight" for layer in range(2) for site in plain.family.maps}
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


def test_block_size_and_double_quantisation_change_the_weights(tiny_model):
    weights = [
        quantized(tiny_model("bert"), Nf4(block_size=size, double_quant=double)).frozen(0, "ffn.dense")[0]
        for size, double in product((32, 64, 256), (True, False))
    ]
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    plain = Backbone.load(tiny_model("bert"), CPU).frozen(0, "ffn.dense")[0]
    errors = [((weight - plain).norm() / plain.norm()).item() for weight in weights]
    assert all(0.06 < error < 0.13 for error in errors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "block_size", BLOCK_SIZES[:-2]
)  # the others are dequantised by compiled code there, in many seconds
@pytest.mark.parametrize("shape", [(64, 64), (24, 96), (6, 256), (5, 7), (3, 1030)])
def test_a_weight_is_dequantised_by_the_scales_of_its_own_blocks(shape, block_size, dtype):
    """As computed here from the definition: rows longer and shorter than a block, or not a multiple of it; a last block cut off.

    Given such rows, bitsandbytes itself is wrong on CPUs with AVX-512.
    """
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    linear = QuantizedLinear(weight, None, Nf4(block_size=block_size, double_quant=False), CPU)
    short = -weight.numel() % block_size
    blocks = torch.nn.functional.pad(weight.flatten(), (0, short)).view(-1, block_size)
    scales = blocks.abs().amax(1, keepdim=True)
    values = linear._state.code
    nearest = values[(blocks / scales)[..., None].sub(values).abs().argmin(-1)]
    wanted = (nearest * scales).flatten()[: weight.numel()].view(shape).to(dtype)
    found = linear.weight_in(dtype)
    assert found.shape == weight.shape
    assert torch.allclose(found, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


def test_a_method_that_trains_weights_is_refused(tiny_model):
    for name, kind in METHODS.items():
        trial = make_trial(name, recipe=Recipe(epochs=4, precision="nf4"), **SMALL[name])
        if kind.shares_backbone:
            kind(**SMALL[name]).check_recipe(trial.recipe, None)
        else:
            with pytest.raises(ValueError, match="trains weights of the backbone, which precision 'nf4' keeps frozen"):
                Engine(quantized(tiny_model("bert"))).add_trial(trial, make_data())


def test_steps_are_not_captured(tiny_model):
    captured = fake_steps()
    engine = Engine(quantized(tiny_model("bert")), captured)
    engine.add_trial(make_trial("lora", r=4), make_data())
    for _ in range(5):
        engine.step()
    assert captured.refused == "the backbone is quantised"
    assert captured.captures == captured.replays == 0


def test_lora_is_what_peft_trains_on_the_4_bit_model_of_transformers(tmp_path):
    """Logits and gradients, with products in fp32. Rows are full blocks, without which bitsandbytes can be wrong (see above)."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model = resolve(str(write_tiny(tmp_path, "llama", hidden_size=64, intermediate_size=128)))
    trial = make_trial("lora", r=4, alpha=8, targets="all", recipe=Recipe(dropout=0.0))
    backbone, data = quantized(model), make_data()
    engine = engine_with(backbone, [trial], data)
    stack, _ = engine.find(trial.id)
    stack.parameters.values += 0.1 * torch.randn(
        stack.parameters.values.shape, generator=torch.Generator().manual_seed(0)
    )
    ours = SimpleNamespace(**{e.name: e for e in stack.parameters.layout.entries})
    values = stack.parameters.values[0].clone()

    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["score"],
    )
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(
        model.path, quantization_config=config, dtype=torch.float32, num_labels=2, device_map="cpu"
    )
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS")
    theirs = peft.get_peft_model(plain, lora).train()
    maps = {
        f"{layer}.{site}": theirs.base_model.model.model.get_submodule(backbone.family.map_path(layer, site))
        for layer, site in product(range(2), backbone.family.maps)
    }
    factors = {}
    for name, module in maps.items():
        assert type(module.base_layer).__name__ == "Linear4bit"
        factors[f"{name}.down"] = module.lora_A["default"].weight
        factors[f"{name}.up"] = module.lora_B["default"].weight
    factors["head.out"] = theirs.base_model.model.score.modules_to_save["default"].weight
    assert set(vars(ours)) == set(factors)
    for name, entry in vars(ours).items():
        factors[name].data.copy_(values[entry.start : entry.stop].view(entry.shape).T)

    inputs = draw(engine._stacks, backbone)
    (loss,) = backward(engine._stacks, backbone, inputs)
    split, examples = stack.states[0].batch()
    total = 0.0
    for i in examples:
        ids = torch.from_numpy(split.ids[split.offsets[i] : split.offsets[i + 1]].astype(np.int64))[None]
        label = torch.tensor([int(split.labels[i])])
        total = total + torch.nn.functional.cross_entropy(theirs(input_ids=ids).logits, label) / len(examples)
    total.backward()
    assert loss.item() == pytest.approx(total.item(), abs=1e-6)
    for name, entry in vars(ours).items():
        grad = stack.parameters.leaf.grad[0, entry.start : entry.stop].view(entry.shape).T
        assert torch.allclose(grad, factors[name].grad, rtol=1e-4, atol=1e-6), name


def test_without_bitsandbytes_the_backbone_says_so(tiny_model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(ImportError):
        quantized(tiny_model("bert"))
    assert quantized_linear.num_bytes(Backbone.load(tiny_model("bert"), CPU).module) > 0
