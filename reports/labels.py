"""Places direct labels in a panel so that they cover neither each other nor what is drawn, and name the right mark.

Works in pixels of the finished layout; boxes are (left, bottom, right, top).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

Box = tuple[float, float, float, float]
Point = tuple[float, float]

# Where a label is tried, in degrees around its point: beside it first, as one reads; nearer rings before wider ones.
_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)
_RINGS = (7, 14, 22, 32, 44, 58, 75)  # points (1/72 inch) between the mark and the label
_LEADER = 20  # from this distance on a thin line leads back to the mark
_CLEARER = 1.5  # another mark must be this many times as far away, else the label could be taken for its own


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a label belongs to, in data units."""

    x: float
    y: float
    text: str


def overlap(first: Box, second: Box) -> float:
    """Common area of two boxes in square pixels."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def distance(point: Point, box: Box) -> float:
    """Pixels between a point and the nearest point of a box."""
    return math.dist(point, _nearest(point, box))


def ambiguous(point: Point, box: Box, rivals: Sequence[Point]) -> bool:
    """Whether the label could be taken for that of another mark."""
    own = distance(point, box)
    return any(distance(rival, box) < _CLEARER * own for rival in rivals)


def place(point: Point, size: Point, frame: Box, taken: Sequence[Box], rivals: Sequence[Point], scale: float) -> Box:
    """The first free and unambiguous place for a label of `size` around `point`, else a free one, else the freest.

    All in pixels; `scale` is pixels per point (1/72 inch).
    """
    boxes = [_box(point, size, ring * scale, math.radians(angle)) for ring in _RINGS for angle in _ANGLES]

    def cost(box: Box) -> tuple[float, bool]:
        covered = size[0] * size[1] - overlap(box, frame) + sum(overlap(box, other) for other in taken)
        # The frame's part is a difference of nearly equal areas.
        return round(covered, 6), ambiguous(point, box, rivals)

    return min(boxes, key=cost)


def annotate(axes: Axes, marks: Sequence[Mark], taken: Sequence[Box], size: float) -> list[Box]:
    """Write each mark's text into the panel; `taken` are boxes to keep free. Returns the labels' boxes."""
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    scale = axes.figure.dpi / 72
    extent = axes.get_window_extent(renderer)
    frame = (extent.x0, extent.y0, extent.x1, extent.y1)
    boxes: list[Box] = []
    points = {mark: _pixels(axes, mark) for mark in marks}
    for mark in sorted(marks, key=lambda mark: (-mark.y, mark.x, mark.text)):
        text = axes.annotate(mark.text, (mark.x, mark.y), xytext=(0, 0), textcoords="offset points", fontsize=size)
        text.set_verticalalignment("center")
        shape = text.get_window_extent(renderer)
        point, rivals = points[mark], [place for other, place in points.items() if other != mark]
        box = place(point, (shape.width + 2, shape.height + 1), frame, [*taken, *boxes], rivals, scale)
        text.set_position(((box[0] + 1 - point[0]) / scale, ((box[1] + box[3]) / 2 - point[1]) / scale))
        if distance(point, box) > _LEADER * scale or ambiguous(point, box, rivals):
            _lead(axes, point, box)
        boxes.append(box)
    return boxes


def _pixels(axes: Axes, mark: Mark) -> Point:
    x, y = axes.transData.transform((mark.x, mark.y))
    return float(x), float(y)


def _box(point: Point, size: Point, gap: float, angle: float) -> Box:
    """A box of that size whose nearest edge lies about `gap` away from the point in that direction."""
    x = point[0] + math.cos(angle) * (gap + size[0] / 2)
    y = point[1] + math.sin(angle) * (gap + size[1] / 2)
    return x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2


def _nearest(point: Point, box: Box) -> Point:
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _lead(axes: Axes, point: Point, box: Box) -> None:
    """A thin line from the mark to its label."""
    start, end = (axes.transData.inverted().transform(end) for end in (point, _nearest(point, box)))
    axes.plot([start[0], end[0]], [start[1], end[1]], color="0.45", linewidth=0.5, zorder=1, scalex=False, scaley=False)
