"""The dropout streams: the right rate and scale, everywhere, whatever the other trials."""

import numpy as np
import pytest
import torch

from tests.fixtures.trials import make_data
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import pack

CPU = torch.device("cpu")


def masks(model, batches, seeds, hidden=0.1, attention=0.1, prefixes=None, prefix=0.0):
    rows = pack(batches, model.shape.heads, CPU)
    prefixes, number = list(prefixes or [0] * len(batches)), len(batches)
    rates = [[rate] * number for rate in (hidden, attention)]
    return DropoutFactors(rows, model.shape, seeds, *rates, rates[0], prefixes, [prefix] * number), rows


def all_factors(drawn, layers):
    places = [drawn.hidden(i).flatten() for i in range(2 * layers + 1)]
    return {"hidden": torch.cat(places), "attention": torch.cat([drawn.attention(i).flatten() for i in range(layers)])}


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_elements_are_dropped_at_the_rate_and_the_mean_is_kept(rate, tiny_bert):
    data = make_data(train=200, low=20, high=21)
    drawn, _ = masks(tiny_bert, [(data.train, np.arange(60))], [(1, 0)], rate, rate)
    for name, factors in all_factors(drawn, 2).items():
        assert factors.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)]), name
        spread = (rate * (1 - rate) / factors.numel()) ** 0.5
        assert (factors == 0).float().mean().item() == pytest.approx(rate, abs=5 * spread), name


def test_places_steps_and_seeds_draw_differently(tiny_bert):
    batch = (make_data().train, np.arange(8))
    drawn, _ = masks(tiny_bert, [batch], [(1, 0)])
    assert not torch.equal(drawn.hidden(0), drawn.hidden(1))
    for other in ((1, 1), (2, 0)):
        assert not torch.equal(drawn.hidden(0), masks(tiny_bert, [batch], [other])[0].hidden(0))


def test_a_row_draws_the_same_beside_a_longer_neighbour(tiny_bert):
    data = make_data(low=3, high=30)
    order = np.argsort(np.diff(data.train.offsets))
    short, long = (data.train, order[:4]), (data.train, order[-9:])
    alone, rows = masks(tiny_bert, [short], [(5, 3)])
    beside, both = masks(tiny_bert, [long, short], [(6, 0), (5, 3)])
    t, n, start = rows.tokens[0], rows.longest[0], both.starts[1]
    assert torch.equal(beside.hidden(2)[0, start : start + t], alone.hidden(2)[0])
    assert torch.equal(beside.attention(1)[9:, :, :n, :n], alone.attention(1))


def test_a_row_with_a_prefix_draws_the_same_beside_a_longer_prefix(tiny_bert):
    data = make_data(low=3, high=30)
    order = np.argsort(np.diff(data.train.offsets))
    short, long = (data.train, order[:4]), (data.train, order[-9:])
    alone, rows = masks(tiny_bert, [short], [(5, 3)], prefixes=[3], prefix=0.2)
    beside, both = masks(tiny_bert, [long, short], [(6, 0), (5, 3)], prefixes=[7, 3], prefix=0.2)
    n, L = rows.longest[0], max(both.longest)
    assert torch.equal(beside.attention(1)[9:, :, :n, :n], alone.attention(1)[..., :n])
    assert torch.equal(beside.attention(1)[9:, :, :n, L : L + 3], alone.attention(1)[..., n:])
    assert torch.equal(beside.prefix(1)[:, 9:, :3], alone.prefix(1))
    assert alone.prefix(1).unique().tolist() == pytest.approx([0.0, 1.25])


def test_a_rate_of_zero_changes_nothing(tiny_bert):
    drawn, _ = masks(tiny_bert, [(make_data().train, np.arange(4))], [(1, 0)], 0.0, 0.0)
    assert drawn.hidden(0) is None
    assert drawn.attention(0) is None
