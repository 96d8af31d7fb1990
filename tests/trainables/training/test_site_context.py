"""A formula may ask only for what its site has."""

import pytest
import torch

from trainables.training.site_context import PackedSiteContext


class OneSegment:
    """Stands for the forward pass: all rows belong to the one segment."""

    def tokens(self, segment, h):
        return h


def context(site):
    return PackedSiteContext(OneSegment(), None, 0, site, incoming=torch.ones(1, 2, 3))


@pytest.mark.parametrize(
    ("site", "defined"),
    [
        ("attention.query", {"map_input"}),
        ("ffn.dense", {"map_input"}),
        ("attention.prefix", {"sublayer_input"}),
        ("attention.output", {"sublayer_input", "residual"}),
        ("ffn.output", {"sublayer_input", "residual"}),
        ("attention.context", set()),
        ("ffn.hidden", set()),
    ],
)
def test_an_input_that_the_site_does_not_have_is_refused(site, defined):
    for name in ("map_input", "sublayer_input", "residual"):
        if name in defined:
            assert getattr(context(site), name).shape == (1, 2, 3)
        else:
            with pytest.raises(AssertionError, match=f"{name} is not defined at {site}"):
                getattr(context(site), name)
