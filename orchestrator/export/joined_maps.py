"""Linear maps that are one module in transformers, as ModernBERT's query, key and value maps are: what was trained beside each of
them is joined to what peft trains beside the whole module, and back.

    LoRA of the maps i:   A = [A_1 ... A_n] [in, n r],   B [n r, all outputs] = B_i in rows of A_i and outputs of map i, else 0

so that the module's output gets exactly the sum of what the maps' outputs get. Vectors over outputs are concatenated; maps
without one get the value that changes nothing. Legend: n maps of a module that have parameters, r rank of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.families.family import ModelFamily
from trainables.methods.spec import Shape, Site

# One map's tensors by the last parts of our names.
MapTensors = Mapping[str, Tensor]


def sites_of(family: ModelFamily, site: Site, trained: Sequence[Site]) -> list[Site]:
    """Return those of the sites `trained` whose maps are parts of the same module as that at `site`, in the module's order."""
    return [other for other in family.sites_in_module(site) if other in trained]


def joined(maps: Mapping[Site, MapTensors], layer: int, backbone: Backbone) -> dict[str, Tensor]:
    """Return the tensors of a module from those of its maps, in our orientation."""
    found = {}
    for name in next(iter(maps.values())):
        values = {site: tensors[name] for site, tensors in maps.items()}
        if name == "down":
            found[name] = torch.cat(list(values.values()), 1)
        elif name == "up":
            found[name] = _diagonal(values, backbone.family, backbone.shape)
        else:
            every = backbone.family.sites_in_module(next(iter(values)))
            parts = (values[site] if site in values else _neutral(name, layer, site, backbone) for site in every)
            found[name] = torch.cat([*parts])
    return found


def part_of(value: Tensor, name: str, site: Site, sites: Sequence[Site], family: ModelFamily, shape: Shape) -> Tensor:
    """Return what belongs to the map at `site` in a module's tensor in our orientation. `sites`: those of the joined maps."""
    every, number = family.sites_in_module(site), sites.index(site)
    widths, part = [shape.ends(other)[1] for other in every], every.index(site)
    if name == "down":
        return value.chunk(len(sites), 1)[number]
    if name == "up":
        return value.chunk(len(sites))[number].split(widths, 1)[part]
    return value.reshape(-1).split(widths)[part]


def _diagonal(values: Mapping[Site, Tensor], family: ModelFamily, shape: Shape) -> Tensor:
    """Return [n r, all outputs] with each map's [r, outputs] in its rows and columns."""
    every = family.sites_in_module(next(iter(values)))
    blocks = []
    for site, value in values.items():
        columns = [value if other == site else value.new_zeros(len(value), shape.ends(other)[1]) for other in every]
        blocks.append(torch.cat(columns, 1))
    return torch.cat(blocks)


def _neutral(name: str, layer: int, site: Site, backbone: Backbone) -> Tensor:
    """Return the vector over a map's outputs that changes nothing: DoRA's magnitude is the norm of the weight, a scale is 1."""
    weight = backbone.frozen(layer, site)[0].detach().cpu()
    return weight.norm(dim=1) if name == "magnitude" else torch.ones(len(weight))
