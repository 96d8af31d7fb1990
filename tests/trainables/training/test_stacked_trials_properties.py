"""A trial's curve is the one it has alone, whichever trials it trains with and whenever they are added and removed."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.language import Recipe
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.training.engine import Engine

RECIPE = Recipe(epochs=2, patience=9)
DATA = [make_data(seed=i, train=20, test=10, low=3, high=low) for i, low in enumerate((5, 12, 20))]
KINDS = (
    ("adapter", {"r": 2}),
    ("adapter", {"r": 4}),
    ("madapter", {"r": 2, "n_mid": 2}),
    ("sparse_adapter", {"r": 4, "score": "magnitude"}),
    ("houlsby_variant", {"r": 4, "variant": "batch_norm"}),
    ("adapter_drop_robust", {"r": 2}),
    ("p_tuning_v2", {"length": 3}),
    ("prompt_tuning", {"length": 2}),
    ("unipelt", {"length": 5, "r": 2, "rank": 2}),
)

residents = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(KINDS),
            "data": st.sampled_from(DATA),
            "batch_size": st.sampled_from((4, 8)),
            "lr": st.sampled_from((1e-4, 3e-3, 1e30)),  # the last one diverges
            "joins": st.integers(0, 6),
            "aside": st.sets(st.integers(0, 12), max_size=4),  # steps at which it has to wait
            "leaves": st.sampled_from((None, None, 3, 7)),
        }
    ),
    min_size=2,
    max_size=5,
)


@pytest.fixture(scope="module")
def backbone(tiny_bert):
    return Backbone.load(tiny_bert, torch.device("cpu"))


def train(backbone, members):
    """Losses and scores of each member by epoch; `members`: (trial, data, joins, aside, leaves) of each."""
    engine, states, step = Engine(backbone), {}, 0
    while step < 7 or engine.residents:
        for trial, data, joins, _, _ in members:
            if joins == step:
                states[trial.id] = engine.add_trial(trial, data)
        for trial, _, _, _, leaves in members:
            if leaves is not None and leaves <= step and trial.id in engine.residents:
                engine.remove_trial(trial.id)
        now = [t.id for t, _, _, aside, _ in members if t.id in engine.residents and step not in aside]
        if now:
            engine.set_active(now)
            for state in engine.step():
                if state.done:
                    engine.remove_trial(state.trial.id)
        step += 1
    return {i: [(p.loss, p.score) for p in state.progress] for i, state in states.items()}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=residents)
def test_a_curve_is_the_same_alone_and_among_any_others(backbone, drawn):
    members = []
    for seed, d in enumerate(drawn):
        method, values = d["kind"]
        trial = make_trial(method, seed=seed, lr=d["lr"], batch_size=d["batch_size"], recipe=RECIPE, **values)
        members.append((trial, d["data"], d["joins"], d["aside"], d["leaves"]))
    together = train(backbone, members)
    for trial, data, _, _, leaves in members:
        (alone,) = train(backbone, [(trial, data, 0, set(), None)]).values()
        seen = together.get(trial.id, [])
        assert len(seen) == len(alone) or leaves is not None
        for (loss, score), (own_loss, own_score) in zip(seen, alone, strict=False):
            assert loss == pytest.approx(own_loss, abs=2e-6)
            assert score == pytest.approx(own_score)
