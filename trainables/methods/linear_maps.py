"""The base class of methods that act on frozen linear maps: on which maps of a layer, and their parameters by width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from trainables.methods.base import Method
from trainables.methods.spec import Parameter, Shape, Site
from trainables.methods.validate import require_int, require_number, require_one_of

QUERY_VALUE: tuple[Site, ...] = ("attention.query", "attention.value")
ALL: tuple[Site, ...] = (*QUERY_VALUE, "attention.key", "attention.dense", "ffn.gate", "ffn.intermediate", "ffn.dense")
Side = Literal["input", "output"]
SIDES: tuple[Side, ...] = ("input", "output")
TARGETS: Mapping[str, tuple[Site, ...]] = {"qv": QUERY_VALUE, "all": ALL}


@dataclass(frozen=True, kw_only=True)
class LinearMapMethod(Method):
    """A method with the same parameters at each linear map, up to its widths.

    `targets`: "qv" (query and value) or "all" maps of a layer: six, or seven with a gated feed-forward part.
    """

    sites: ClassVar[tuple[Site, ...]] = ALL

    targets: Literal["qv", "all"] = "qv"

    def check(self, shape: Shape | None) -> None:
        require_one_of("targets", self.targets, tuple(TARGETS))

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        return self.map_parameters(*shape.ends(site)) if site in TARGETS[self.targets] else {}

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        """Returns the parameters, by name, at a linear map with these input and output widths."""
        raise NotImplementedError

    def maps(self, shape: Shape) -> list[Site]:
        """Returns the linear maps of a layer on which the method acts."""
        return [site for site in TARGETS[self.targets] if site in shape.maps]

    def ends(self, shape: Shape) -> list[tuple[int, int]]:
        """Returns (input width, output width) of every linear map on which the method acts, over all layers."""
        return shape.layers * [shape.ends(site) for site in self.maps(shape)]

    def require_divisor(self, name: str, value: int, shape: Shape | None, sides: tuple[Side, ...]) -> None:
        """Raise ValueError unless `value` divides the widths of these sides of all maps."""
        if shape is None:
            return
        for site in self.maps(shape):
            for side, width in zip(SIDES, shape.ends(site), strict=True):
                if side in sides and width % value:
                    raise ValueError(f"{name} = {value}: must divide {width}, the {side} width of {site}")


@dataclass(frozen=True, kw_only=True)
class RankedMapMethod(LinearMapMethod):
    """A method whose change of a map has a rank.

    `r`: rank; `alpha`: numerator of the scale alpha / r, None for `alpha_per_rank` r.
    """

    alpha_per_rank: ClassVar[int] = 1

    r: int = 8
    alpha: float | None = None

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        if self.alpha is not None:
            require_number("alpha", self.alpha, 1e-3, 1e4)

    @property
    def strength(self) -> float:
        """The value of alpha that is used: the setting `alpha`, or its default if that is None."""
        return self.alpha_per_rank * self.r if self.alpha is None else self.alpha

    @property
    def scale(self) -> float:
        """The factor of the change of a map."""
        return self.strength / self.r
