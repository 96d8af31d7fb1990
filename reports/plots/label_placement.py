"""Places direct labels in a panel so that they cover neither each other nor what is drawn, and are next to their points.

Works in pixels of the finished layout. Boxes are (left, bottom, right, top); C candidate places of a label, N other boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Array = np.ndarray

# Where a label is tried: beside its mark first, as one reads; nearer rings before wider ones (points, 1/72 inch).
_RINGS = (5, 9, 14, 20, 28, 38, 50, 64, 80, 98, 118)
_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 67, 113, 247, 293)
_LEADER = 13  # from this distance on a thin line leads back to the mark
_CLEARER = 1.5  # another mark must be this many times as far away, else the label could be taken for its own
_PROMISING = 32
_PASSES = 4  # how often every label is placed again beside the others
# Costs: a covered square pixel, one of a bar, a label that needs its line, a line through something, a point of distance.
_COVERED, _BAR, _DOUBT, _CROSSED, _FAR = 10.0, 0.15, 12.0, 60.0, 1.0


@dataclass(frozen=True, kw_only=True)
class LabelledPoint:
    """A point with its label, in data units."""

    x: float
    y: float
    text: str
    colour: str = "black"


def overlaps(boxes: Array, others: Array) -> Array:
    """Common areas [C, N] of boxes [C, 4] and others [N, 4], in square pixels."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def distances(points: Array, boxes: Array) -> Array:
    """Pixels [C, N] between each box [C, 4] and points [N, 2]."""
    nearest = np.clip(points[None], boxes[:, None, :2], boxes[:, None, 2:])
    return np.hypot(*np.moveaxis(points[None] - nearest, -1, 0))


def place(
    point: Point, size: Point, panel: Box, taken: Array, rivals: Array, leaders: Array, bars: Array, scale: float
) -> Box:
    """The best place for a label of `size` around `point`.

    `taken` [N, 4] must stay free, `bars` [N, 4] should; `rivals` [N, 2] are other marks, `leaders` [N, 4] lines
    (x, y, x, y) that already stand. All in pixels; `scale` is pixels per point (1/72 inch).
    """
    boxes, far = _candidates(point, size, scale)
    own = distances(np.array([point]), boxes)[:, 0]
    outside = size[0] * size[1] - overlaps(boxes, np.array([panel]))[:, 0]
    cost = _COVERED * (outside.round(3) + overlaps(boxes, taken).sum(1)) + _BAR * overlaps(boxes, bars).sum(1)
    doubtful = (own > _LEADER * scale) | (distances(rivals, boxes) < _CLEARER * own[:, None]).any(1)
    cost += _DOUBT * doubtful + _FAR * far
    # Lines are costly to judge and only add to the cost: for the places that are promising without them.
    best = np.argsort(cost, kind="stable")[:_PROMISING]
    boxes, lines = boxes[best], _lines(point, boxes[best])
    hit = _boxes_hit(lines, taken) + _crossings(lines, leaders) + _crossings(_diagonals(boxes), leaders)
    return tuple(boxes[int((cost[best] + _CROSSED * hit * doubtful[best]).argmin())].tolist())


def annotate(
    axes: Axes, marks: Sequence[LabelledPoint], taken: Sequence[Box], bars: Sequence[Box], size: float
) -> list[Box]:
    """Write each mark's text into the panel: `taken` are boxes to keep free, `bars` those to avoid. Returns the labels' boxes."""
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    scale = axes.figure.dpi / 72
    extent = axes.get_window_extent(renderer)
    panel = (extent.x0, extent.y0, extent.x1, extent.y1)
    texts = [_write(axes, mark, size) for mark in marks]
    shapes = [text.get_window_extent(renderer) for text in texts]
    sizes = [(shape.width + 3, shape.height + 1) for shape in shapes]
    points = axes.transData.transform([(mark.x, mark.y) for mark in marks])
    boxes = _arrange(points, sizes, panel, _array(taken), _array(bars), scale)
    for text, point, box, rivals in zip(texts, points, boxes, _others(points), strict=True):
        text.set_position(((box[0] + 1.5 - point[0]) / scale, ((box[1] + box[3]) / 2 - point[1]) / scale))
        if _needs_line(point, box, rivals, scale):
            _lead(axes, point, box)
    return boxes


def _arrange(points: Array, sizes: list[Point], panel: Box, taken: Array, bars: Array, scale: float) -> list[Box]:
    """Boxes of all labels, the most crowded marks first, then again with the others in place."""
    near = np.hypot(*np.moveaxis(points[:, None] - points[None], -1, 0))
    crowded = sorted(range(len(points)), key=lambda i: (np.sort(near[i])[:6].sum(), i))
    found: dict[int, Box] = {}
    for _ in range(_PASSES):
        before = dict(found)
        for i in crowded:
            others = [box for j, box in found.items() if j != i]
            rivals = np.delete(points, i, 0)
            lines = [_line(points[j], found[j]) for j in found if j != i]
            found[i] = place(points[i], sizes[i], panel, _array([*taken, *others]), rivals, _array(lines), bars, scale)
        if found == before:
            break
    return [found[i] for i in range(len(points))]


def _candidates(point: Point, size: Point, scale: float) -> tuple[Array, Array]:
    """Boxes [C, 4] of that size whose nearest edge lies about a ring's radius [C] away from the point, in points."""
    ring, angle = (grid.ravel() for grid in np.meshgrid(_RINGS, np.radians(_ANGLES), indexing="ij"))
    x = point[0] + np.cos(angle) * (ring * scale + size[0] / 2)
    y = point[1] + np.sin(angle) * (ring * scale + size[1] / 2)
    return np.stack([x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2], axis=1), ring


def _needs_line(point: Point, box: Box, rivals: Array, scale: float) -> bool:
    boxes = np.array([box])
    own = distances(np.array([point]), boxes)[0, 0]
    near = np.less(distances(rivals, boxes), _CLEARER * own)
    return bool(own > _LEADER * scale or near.any())


def _line(point: Point, box: Box) -> Box:
    """From the mark to the nearest point of its label."""
    return point[0], point[1], min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _lines(point: Point, boxes: Array) -> Array:
    ends = np.clip(np.asarray(point)[None], boxes[:, :2], boxes[:, 2:])
    return np.concatenate([np.broadcast_to(point, ends.shape), ends], axis=1)


def _diagonals(boxes: Array) -> Array:
    """A line through each label, by which a leader that passes under it is noticed."""
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    return np.stack([boxes[:, 0], middle, boxes[:, 2], middle], axis=1)


def _boxes_hit(lines: Array, boxes: Array) -> Array:
    """How many boxes [N, 4] each line [C, 4] passes through, by points along it; those at its start do not count."""
    along = np.linspace(0.15, 0.95, 9)[None, :, None]
    points = lines[:, None, :2] + along * (lines[:, None, 2:] - lines[:, None, :2])
    inside = (points[:, :, None] >= boxes[None, None, :, :2]) & (points[:, :, None] <= boxes[None, None, :, 2:])
    at_start = ((lines[0, :2] >= boxes[:, :2]) & (lines[0, :2] <= boxes[:, 2:])).all(-1)
    return (inside.all(-1).any(1) & np.logical_not(at_start)).sum(1)


def _crossings(lines: Array, others: Array) -> Array:
    """How many of the others [N, 4] each line [C, 4] crosses."""
    a, b = lines[:, None, :2], lines[:, None, 2:]
    c, d = others[None, :, :2], others[None, :, 2:]
    return ((_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)).sum(1)


def _side(start: Array, end: Array, point: Array) -> Array:
    along, to = end - start, point - start
    return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]


def _array(boxes: Sequence[Box]) -> Array:
    return np.array(boxes, dtype=float).reshape(-1, 4)


def _others(points: Array) -> list[Array]:
    return [np.delete(points, i, 0) for i in range(len(points))]


def _write(axes: Axes, mark: LabelledPoint, size: float) -> Annotation:
    return axes.annotate(
        mark.text, (mark.x, mark.y), xytext=(0, 0), textcoords="offset points",
        fontsize=size, va="center", color=mark.colour,
    )  # fmt: skip


def _lead(axes: Axes, point: Point, box: Box) -> None:
    """A thin line from the mark to its label."""
    x, y, end_x, end_y = _line(point, box)
    ends = axes.transData.inverted().transform([(x, y), (end_x, end_y)])
    axes.plot(ends[:, 0], ends[:, 1], color="#5c5c5c", linewidth=0.4, zorder=1.5, scalex=False, scaley=False)


def stacked(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights of labels in one column, each as near as it can be to its own, at least `gap` apart, within the bounds."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], i))
    gap = min(gap, (high - low) / max(len(heights) - 1, 1))
    placed = _pressed([heights[i] for i in order], gap)
    last = len(placed) - 1
    bounded = [min(max(height, low + i * gap), high - (last - i) * gap) for i, height in enumerate(placed)]
    return [bounded[order.index(i)] for i in range(len(heights))]


def _pressed(heights: list[float], gap: float) -> list[float]:
    """Ascending heights pushed apart, each crowd centred where its members wanted to be."""
    crowds: list[tuple[float, int]] = []  # (lowest place, members)
    for height in heights:
        start, members = height, 1
        while crowds and crowds[-1][0] + crowds[-1][1] * gap > start:
            other, more = crowds.pop()
            start = (other * more + (start - more * gap) * members) / (more + members)
            members += more
        crowds.append((start, members))
    return [start + i * gap for start, members in crowds for i in range(members)]
