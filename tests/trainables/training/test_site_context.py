"""A formula may ask only for what its site has."""

import pytest
import torch

from trainables.training.site_context import PackedSiteContext

INPUT, RESIDUAL = torch.ones(1, 2, 3), torch.zeros(1, 2, 3)


class OneSegment:
    """Stands for the rows of all segments: they belong to the one there is."""

    def part(self, segment, h, tokens):
        return h


def context(site):
    return PackedSiteContext(
        backbone=None,
        segmented=OneSegment(),
        segment=None,
        tokens=None,
        training=True,
        layer=0,
        site=site,
        whole_input=INPUT,
        whole_residual=RESIDUAL,
    )


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
            assert getattr(context(site), name) is (RESIDUAL if name == "residual" else INPUT)
        else:
            with pytest.raises(AssertionError, match=f"{name} is not defined at {site}"):
                getattr(context(site), name)
