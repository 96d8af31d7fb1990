"""Prompts, prefixes, scalings, biases and freezing against a second formula, peft and the published counts."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers

from tests.fixtures.method_settings import SMALL
from tests.fixtures.plain_encoder import PlainEncoder, plain
from tests.fixtures.plain_methods import flat_prefix, plain_of
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.methods.test_methods import BERT, ROBERTA
from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import pack
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.training.engine import Engine
from trainables.training.forward_pass import ForwardPass
from trainables.training.losses import losses_of
from trainables.training.parameter_counts import build, count
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters
from trainables.worker import checkpoint

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[3]
LENGTHS = {"low": 3, "high": 20}
COVERED = (
    *("layer_norm", "linear_probe", "ia3", "bitfit", "bitfit_small", "prefix", "prefix_mlp", "p_tuning_v2"),
    *("prompt_tuning", "adaption_prompt", "mam", "unipelt"),
)


def prepare(backbone, method, settings, seeds, away=0.3):
    """Stacked trials, away from their initial values, so that gates are open and scales differ from one."""
    built = build(method, settings, backbone.shape)
    layout = ParameterLayout(built, backbone, 2)
    rows = torch.stack([layout.initial_values(seed, backbone) for seed in seeds])
    rows += away * torch.randn(rows.shape, generator=torch.Generator().manual_seed(9))
    return StackedParameters(layout, backbone, make_trial().recipe, rows)


def examples(split, chosen):
    for i in chosen:
        yield torch.from_numpy(split.ids[split.offsets[i] : split.offsets[i + 1]].astype(np.int64))


def named(layout, row):
    return {e.name: row[e.start : e.stop].view(e.shape) for e in layout.entries}


CASES = [(name, SMALL[name]) for name in COVERED if name != "linear_probe"]
CASES += [("linear_probe", {"reads": reads}) for reads in ("own", "first", "mean")]


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "fused"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
@pytest.mark.parametrize(("method", "settings"), CASES, ids=[f"{m}-{s.get('reads', '')}".strip("-") for m, s in CASES])
def test_logits_and_gradients_in_mixed_company_are_those_of_the_formula(method, settings, family, explicit, tiny_model):
    model = tiny_model(family)
    backbone, split = Backbone.load(model, CPU), make_data(**LENGTHS).train
    batches = [np.array(c) for c in ([3, 1, 4], [0, 5, 9, 2], [8, 7], [11], [12, 13, 6])]
    # Other trials on both sides: one without a prefix, one with a longer one and virtual tokens of its own.
    ours = prepare(backbone, method, settings, (1, 2))
    stacks = [
        prepare(backbone, "adapter", {"r": 4}, (3,)),
        ours,
        prepare(backbone, "prefix", {"length": 7}, (4,)),
        prepare(backbone, "prompt_tuning", {"length": 2}, (5,)),
    ]
    segments, start = [], 0
    for parameters in stacks:
        segments.append(Segment(parameters, start, start + len(parameters.values)))
        start = segments[-1].stop
    added = [s.parameters.layout.method.virtual_tokens for s in segments for _ in range(s.stop - s.start)]
    blocks = [s.stop - s.start for s in segments]
    rows = pack(
        [(split, c) for c in batches], backbone.shape.heads, CPU, blocks, added, reads_last=backbone.shape.reads_last
    )
    logits = ForwardPass(backbone, segments, rows, None, twice_differentiable=explicit).logits()[1]
    losses_of(logits, rows, segments[1], CLASSIFICATION).sum().backward()

    leaf = ours.values.clone().requires_grad_()
    for k, chosen in enumerate(batches[1:3]):
        formula = plain_of(method, model, named(ours.layout, leaf[k]))
        theirs = torch.stack([formula.logits(ids, settings.get("reads", "own")) for ids in examples(split, chosen)])
        assert torch.allclose(logits[k, : len(chosen)], theirs, atol=1e-5)
        torch.nn.functional.cross_entropy(theirs, torch.from_numpy(split.labels[chosen]).long()).backward()
    assert torch.allclose(ours.leaf.grad, leaf.grad, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
def test_the_plain_encoder_is_the_hugging_face_model(family, tiny_model):
    model = tiny_model(family)
    reference = transformers.AutoModel.from_pretrained(model.path, attn_implementation="eager").eval()
    ids = torch.arange(20, 29)
    with torch.no_grad():
        states = reference(input_ids=ids[None]).last_hidden_state[0]
    assert torch.allclose(plain(model, {}).states(ids), states, atol=1e-5)


def test_dropout_reaches_the_prefix_and_its_probabilities(tiny_bert):
    """Attention's and P-tuning's own factors, beside a trial with a longer prefix and longer examples."""
    backbone, split = Backbone.load(tiny_bert, CPU), make_data(**LENGTHS).train
    order = np.argsort(np.diff(split.offsets))
    batches = [(split, order[-4:]), (split, order[:3])]
    stacks = [
        prepare(backbone, "prefix", {"length": 6}, (1,)),
        prepare(backbone, "p_tuning_v2", {"length": 4}, (2,)),
    ]
    rows = pack(batches, backbone.shape.heads, CPU, [1, 1])
    masks = DropoutFactors(
        rows, backbone.shape, [(1, 0), (2, 0)], [0.0, 0.0], [0.3, 0.3], [0.0, 0.0], [6, 4], [0.0, 0.5]
    )
    segments = [Segment(stacks[0], 0, 1), Segment(stacks[1], 1, 2)]
    both = ForwardPass(backbone, segments, rows, masks).logits()
    L = rows.keys.shape[-1]
    for k, length in ((0, 6), (1, 4)):
        v, b = named(stacks[k].layout, stacks[k].values[0]), sum(rows.examples[:k])
        for e, ids in enumerate(examples(split, batches[k][1])):
            n = len(ids)

            def factors(i, e=b + e, n=n, length=length):
                own = masks.attention(i)[e, :, :n]
                return torch.cat([own[..., :n], own[..., L : L + length]], -1)

            def prefix(i, x, e=b + e, v=v, k=k, length=length):
                kept = masks.prefix(i)[:, e, :length] if k == 1 else torch.ones(2, 1, 1)
                return [part * share for part, share in zip(flat_prefix(v)(i, x), kept, strict=True)]

            plain = PlainEncoder(tiny_bert, v, factors=factors, prefix=prefix)
            assert torch.allclose(both[k][0, e], plain.logits(ids), atol=1e-5)
    short = rows.longest[1]
    columns = torch.stack([masks.attention(i)[4:, :, :short, L : L + 4] for i in range(2)])
    assert (columns == 0).float().mean().item() == pytest.approx(0.3, abs=0.1)
    drawn = torch.stack([masks.prefix(i)[:, 4:] for i in range(2)])[..., :4, :]
    assert drawn.unique().tolist() == [0.0, 2.0]
    assert (drawn == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(drawn[0, 0, 0], drawn[0, 0, 1])  # each example has its own


def hugging_face(model, values):
    kind = transformers.AutoModelForSequenceClassification
    reference = kind.from_pretrained(model.path, num_labels=2, attn_implementation="eager").eval()
    with torch.no_grad():
        reference.classifier.weight.copy_(values["head.out"].T)
        reference.classifier.bias.copy_(values["head.out_bias"])
    return reference


def take_past_keys(encoder):
    """Let peft 0.21 find the argument that it looks for in the signature: transformers 5.24 calls it `cache`."""
    forward = encoder.forward
    name = "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"

    def renamed(*args, past_key_values=None, **kwargs):
        return forward(*args, **{**kwargs, name: past_key_values})

    encoder.forward = renamed


def one_pass(backbone, parameters, split, chosen):
    rows = pack([(split, chosen)], backbone.shape.heads, CPU)
    segment = Segment(parameters, 0, 1)
    logits = ForwardPass(backbone, [segment], rows, None).logits()[0]
    losses_of(logits, rows, segment, CLASSIFICATION).sum().backward()
    return logits[0], named(parameters.layout, parameters.leaf.grad[0])


def padded(split, chosen):
    ids = torch.nn.utils.rnn.pad_sequence(list(examples(split, chosen)), batch_first=True)
    mask = torch.arange(ids.shape[1]) < torch.from_numpy(np.diff(split.offsets)[chosen])[:, None]
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": torch.from_numpy(split.labels[chosen]).long()}


def test_ia3_equals_peft(tiny_bert):
    backbone, split, chosen = Backbone.load(tiny_bert, CPU), make_data(**LENGTHS).train, np.array([3, 1, 4, 15])
    parameters = prepare(backbone, "ia3", {}, (1,))
    values = named(parameters.layout, parameters.values[0])
    logits, grads = one_pass(backbone, parameters, split, chosen)
    layer = r".*layer\.\d+\."
    config = peft.IA3Config(
        task_type="SEQ_CLS",
        target_modules=layer + r"(attention\.self\.(key|value)|output\.dense)",
        feedforward_modules=layer + r"output\.dense",
    )
    reference = peft.get_peft_model(hugging_face(tiny_bert, values), config).eval()
    places = {
        "attention.self.key": "attention.key",
        "attention.self.value": "attention.value",
        "output.dense": "ffn.hidden",
    }
    vectors = {}
    for name, p in reference.named_parameters():
        if "ia3_l" in name:
            i, _, path = name.partition("encoder.layer.")[2].partition(".ia3_l")[0].partition(".")
            vectors[f"{i}.{places[path]}.scale"] = p
    assert len(vectors) == 6
    with torch.no_grad():
        for name, p in vectors.items():
            p.copy_(values[name].view(p.shape))
    out = reference(**padded(split, chosen))
    out.loss.backward()
    assert torch.allclose(logits, out.logits, atol=1e-5)
    for name, p in vectors.items():
        assert torch.allclose(p.grad.flatten(), grads[name], atol=1e-5), name


def test_prefixes_equal_peft_once_its_positions_are_moved_back(tiny_bert):
    backbone, split, chosen = Backbone.load(tiny_bert, CPU), make_data(**LENGTHS).train, np.array([3, 1, 4, 15])
    length, D = 5, tiny_bert.shape.width
    parameters = prepare(backbone, "prefix", {"length": length}, (1,))
    values = named(parameters.layout, parameters.values[0])
    logits, grads = one_pass(backbone, parameters, split, chosen)
    base = hugging_face(tiny_bert, values)
    with torch.no_grad():  # peft counts the text's positions from there
        table = base.bert.embeddings.position_embeddings.weight
        table[length:] = table[:-length].clone()
    take_past_keys(base.bert)
    reference = peft.get_peft_model(
        base, peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=length)
    ).eval()
    weight = (
        reference.prompt_encoder.default.embedding.weight
    )  # [l, 2 L D]: key, value of layer 0, key, value of layer 1

    def columns(flat):
        return {f"{j // 2}.attention.prefix.{('key', 'value')[j % 2]}": flat[:, j * D : (j + 1) * D] for j in range(4)}

    with torch.no_grad():
        for name, part in columns(weight).items():
            part.copy_(values[name])
    out = reference(**padded(split, chosen))
    out.loss.backward()
    assert torch.allclose(logits, out.logits, atol=1e-5)
    for name, part in columns(weight.grad).items():
        assert torch.allclose(part, grads[name], atol=1e-5), name


def test_a_checkpoint_gives_the_same_outputs_in_another_process(tiny_bert, tmp_path):
    """After an epoch of training, on a regression task, whose predictions are the outputs themselves."""
    data, engine = make_data(outputs=1, train=16), Engine(Backbone.load(tiny_bert, CPU))
    trials = [make_trial(m, lr=1e-2, **SMALL[m]) for m in COVERED]
    for trial in trials:
        engine.add_trial(trial, data)
    while not engine.step():
        pass
    for trial in trials:
        state, tensors = engine.state(trial.id)
        saved = checkpoint.Checkpoint(epoch=1, done=False, progress=state.progress, tensors=tensors)
        checkpoint.write(tmp_path / trial.id, trial, saved)
    script = """
import json, sys, torch
from pathlib import Path
from tests.fixtures.trials import make_data
from search_spaces.records import Trial
from trainables.worker import checkpoint
from trainables.backbone.backbone import Backbone
from trainables.training.engine import Engine
from trainables.backbone.models import resolve
torch.set_num_threads(1)
for text in json.loads(sys.argv[2]):
    trial, engine = Trial.from_json(text), Engine(Backbone.load(resolve(sys.argv[1]), torch.device("cpu")))
    saved = checkpoint.read(Path(sys.argv[3]) / trial.id, trial)
    engine.restore(trial, make_data(outputs=1, train=16), saved.tensors, saved.epoch, saved.progress)
    print(json.dumps(engine.test(trial.id).predictions))
"""
    words = [str(tiny_bert.path), json.dumps([t.to_json() for t in trials]), str(tmp_path)]
    paths = os.pathsep.join(map(str, (Path(__file__).parent, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for trial, line in zip(trials, done.stdout.splitlines(), strict=True):
        assert json.loads(line) == pytest.approx(list(engine.test(trial.id).predictions), abs=1e-6), trial.method


@pytest.mark.parametrize("method", ["layer_norm", "linear_probe", "ia3", "bitfit", "bitfit_small", "adaption_prompt"])
def test_these_start_as_the_bare_encoder(method, tiny_bert, tiny_roberta):
    for model in (tiny_bert, tiny_roberta):
        backbone, split = Backbone.load(model, CPU), make_data(**LENGTHS).train
        settings = {"reads": "own"} if method == "linear_probe" else SMALL[method]
        parameters = prepare(backbone, method, settings, (1,), away=0)
        ours, _ = one_pass(backbone, parameters, split, np.arange(6))
        plain = PlainEncoder(model, named(parameters.layout, parameters.values[0]))
        bare = torch.stack([plain.logits(ids) for ids in examples(split, range(6))])
        assert torch.allclose(ours, bare, atol=1e-6)


def test_a_closed_gate_is_exactly_the_frozen_attention(tiny_bert):
    backbone, split = Backbone.load(tiny_bert, CPU), make_data(**LENGTHS).train
    logits = [
        one_pass(backbone, prepare(backbone, m, s, (1,), away=0), split, np.arange(6))[0]
        for m, s in (("adaption_prompt", SMALL["adaption_prompt"]), ("linear_probe", {"reads": "own"}))
    ]
    assert torch.equal(*logits)


def test_prompts_start_as_different_words_or_normal(tiny_bert):
    backbone = Backbone.load(tiny_bert, CPU)
    prompts = {}
    for start in ("vocabulary", "normal"):
        parameters = prepare(backbone, "prompt_tuning", {"length": 50, "start": start}, (1, 2), away=0)
        prompts[start] = torch.stack(
            [named(parameters.layout, row)["0.embeddings.prompt"] for row in parameters.values]
        )
    words = backbone.words.weight
    found = [(p[:, None] == words[None]).all(-1).nonzero()[:, 1].tolist() for p in prompts["vocabulary"]]
    assert len(set(found[0])) == len(set(found[1])) == 50
    assert found[0] != found[1]
    assert prompts["normal"].std().item() == pytest.approx(1, abs=0.05)


# Trained parameters of the two base encoders without the head, from the reference cards; and what has to be stored.
PUBLISHED = [
    ("layer_norm", {}, 38_400, 0),
    ("linear_probe", {}, 0, 0),
    ("prefix", {"length": 20}, 368_640, 368_640),
    ("prefix", {"length": 30}, 552_960, 552_960),
    ("prefix", {"length": 128}, 2_359_296, 2_359_296),
    ("prefix", {"length": 20, "mlp": 512}, 9_864_704, 368_640),
    ("prefix_mlp", {"length": 30, "mlp": 512}, 9_872_384, 552_960),
    ("p_tuning_v2", {"length": 20}, 368_640, 368_640),
    ("prompt_tuning", {"length": 20}, 15_360, 15_360),
    ("prompt_tuning", {"length": 100}, 76_800, 76_800),
    ("adaption_prompt", {"layers": 2, "length": 8}, 12_312, 12_312),
    ("adaption_prompt", {"layers": 12, "length": 10}, 92_304, 92_304),
    ("ia3", {}, 55_296, 55_296),
    ("bitfit", {}, 102_144, 82_944),
    ("bitfit_small", {}, 46_080, 46_080),
    ("mam", {"length": 30, "r": 512}, 10_005_504, 10_005_504),
    ("mam", {"length": 16, "r": 16}, 599_232, 599_232),
    ("mam", {"length": 30, "r": 384, "mlp": 800}, 22_493_984, 552_960 + 7_091_712),
    ("unipelt", {"length": 10, "r": 48, "rank": 8}, 1_410_672, 1_410_672),
    ("unipelt", {"length": 10, "r": 48, "rank": 8, "mlp": 512}, 11_083_376, 1_410_672),
]


@pytest.mark.parametrize(("method", "settings", "trained", "stored"), PUBLISHED)
def test_counts_are_the_published_ones(method, settings, trained, stored):
    for shape in (BERT, ROBERTA):
        built = build(method, settings, shape)
        assert count(built, shape, 2).trained - shape.head(2, built.head_reads) == trained
        assert built.stored(shape).values == stored


def test_heads_of_the_probes_count_as_published():
    heads = {reads: [s.head(2, reads) for s in (BERT, ROBERTA)] for reads in ("own", "first", "mean")}
    assert heads == {"own": [1_538, 592_130], "first": [1_538, 1_538], "mean": [1_538, 1_538]}


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("prefix", {"length": 0}, "length = 0: must be a whole number between 1 and 512"),
        ("prefix", {"length": 513}, "the most tokens of an example"),
        ("prefix", {"mlp": -1}, "mlp = -1"),
        ("prefix_mlp", {"mlp": 0}, "between 1 and 8192"),
        ("p_tuning_v2", {"dropout": 1.0}, "dropout = 1.0: must be a share"),
        ("prompt_tuning", {"length": 512}, "between 1 and 511"),
        ("prompt_tuning", {"start": "zeros"}, "vocabulary, normal"),
        ("adaption_prompt", {"layers": 13}, "between 1 and 12 (the backbone's layers)"),
        ("linear_probe", {"reads": "last"}, "own, first, mean"),
        ("mam", {"r": 769}, "between 1 and 768"),
        ("mam", {"scale": -1}, "scale = -1"),
        ("unipelt", {"rank": 0}, "rank = 0"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(method, settings, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        build(method, settings, BERT)


def test_virtual_tokens_and_text_must_fit_the_positions(tiny_bert):
    engine = Engine(Backbone.load(tiny_bert, CPU))
    engine.add_trial(make_trial("prompt_tuning", length=12), make_data())  # 12 + 128 = 140
    with pytest.raises(ValueError, match="13 virtual tokens and max_length = 128: together at most 140"):
        engine.add_trial(make_trial("prompt_tuning", length=13), make_data())
    engine.add_trial(make_trial("prefix", length=13), make_data())  # takes no positions


def test_prompts_prefixes_gates_and_scales_do_not_decay(tiny_bert):
    backbone = Backbone.load(tiny_bert, CPU)
    decayed = {}
    for method in ("prefix", "prefix_mlp", "prompt_tuning", "adaption_prompt", "ia3", "bitfit", "mam", "unipelt"):
        layout = ParameterLayout(build(method, SMALL[method]), backbone, 2)
        names = {e.name.rpartition(".")[2] for e in layout.entries if e.decayed and not e.name.startswith("head.")}
        decayed[method] = names
    assert decayed == {
        **{name: set() for name in ("prefix", "prompt_tuning", "adaption_prompt", "ia3", "bitfit")},
        "prefix_mlp": {"hidden", "out"},
        "mam": {"down", "up"},
        "unipelt": {"down", "up", "a", "b"},
    }
