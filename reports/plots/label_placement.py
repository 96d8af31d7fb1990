"""Places labels in a panel next to their points, so that they cover neither each other nor what is drawn.

Each label gets the candidate place of lowest cost, given the places of the others; this is repeated a few times. Coordinates are
pixels of the finished layout; a box is (left, bottom, right, top). Shapes: C candidates of a label; N other boxes, points or
lines.
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

# Candidate places of a label: distance from its mark (points, 1/72 inch) and direction (degrees). Of equal costs the first wins,
# so that a label stands to the right of its mark if nothing is there.
_RINGS = (5, 9, 14, 20, 28, 38, 50, 64, 80, 98, 118)
_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 67, 113, 247, 293)
_LEADER = 13  # points: a label farther from its mark than this is joined to it by a thin line (a leader)
# Other marks must be this many times as far from a label as its own mark, else it could be taken for theirs.
_CLEARER = 1.5
_PROMISING = 32  # candidates whose leaders are examined
_PASSES = 4  # the most times that every label is placed, given the places of the others
# Costs in this order: per covered square pixel; per covered square pixel of a bar; for a label that needs a leader; per box or
# other leader that its leader crosses; per point of distance from the mark.
_COVERED, _BAR, _DOUBT, _CROSSED, _FAR = 10.0, 0.15, 12.0, 60.0, 1.0


@dataclass(frozen=True, kw_only=True)
class LabelledPoint:
    """A point in data units with its label."""

    x: float
    y: float
    text: str
    colour: str = "black"


def overlaps(boxes: Array, others: Array) -> Array:
    """Areas [C, N] that each of `boxes` [C, 4] has in common with each of `others` [N, 4], in square pixels."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def distances(points: Array, boxes: Array) -> Array:
    """Distances [C, N] in pixels from each box [C, 4] to each of `points` [N, 2]; 0 for a point inside the box."""
    nearest = np.clip(points[None], boxes[:, None, :2], boxes[:, None, 2:])
    return np.hypot(*np.moveaxis(points[None] - nearest, -1, 0))


def place(
    point: Point, size: Point, panel: Box, taken: Array, rivals: Array, leaders: Array, bars: Array, scale: float
) -> Box:
    """The box of lowest cost for a label of `size` (width, height) near `point`.

    taken: [N, 4], boxes that the label must not cover (high cost).
    bars: [N, 4], boxes that it should not cover (low cost).
    rivals: [N, 2], the other marks.
    leaders: [N, 4], lines (x, y, x, y) that join other labels to their marks.
    scale: pixels per point (1/72 inch); everything else is in pixels.
    """
    boxes, far = _candidates(point, size, scale)
    own = distances(np.array([point]), boxes)[:, 0]
    outside = size[0] * size[1] - overlaps(boxes, np.array([panel]))[:, 0]
    cost = _COVERED * (outside.round(3) + overlaps(boxes, taken).sum(1)) + _BAR * overlaps(boxes, bars).sum(1)
    doubtful = (own > _LEADER * scale) | (distances(rivals, boxes) < _CLEARER * own[:, None]).any(1)
    cost += _DOUBT * doubtful + _FAR * far
    # Examining the leaders is slow and can only add to the cost: it is done for the candidates that cost least without it.
    best = np.argsort(cost, kind="stable")[:_PROMISING]
    boxes, lines = boxes[best], _lines(point, boxes[best])
    hit = _boxes_hit(lines, taken) + _crossings(lines, leaders) + _crossings(_diagonals(boxes), leaders)
    return tuple(boxes[int((cost[best] + _CROSSED * hit * doubtful[best]).argmin())].tolist())


def annotate(
    axes: Axes, marks: Sequence[LabelledPoint], taken: Sequence[Box], bars: Sequence[Box], size: float
) -> list[Box]:
    """Write each mark's text into the panel, in type of `size` points, and return the boxes of the texts in pixels.

    `taken`: boxes that no text may cover; `bars`: boxes that texts should not cover. Both in pixels.
    """
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
    """The boxes of all labels, in the order of `points` [N, 2].

    Labels of marks that stand close to others are placed first. Then all are placed again, each given the places of the
    others, until none moves or `_PASSES` is reached.
    """
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
    """The candidate boxes [C, 4] of a label of `size`, and about how far [C] each is from the point, in points (1/72 inch)."""
    ring, angle = (grid.ravel() for grid in np.meshgrid(_RINGS, np.radians(_ANGLES), indexing="ij"))
    x = point[0] + np.cos(angle) * (ring * scale + size[0] / 2)
    y = point[1] + np.sin(angle) * (ring * scale + size[1] / 2)
    return np.stack([x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2], axis=1), ring


def _needs_line(point: Point, box: Box, rivals: Array, scale: float) -> bool:
    """Whether a label is so far from its mark, or so near to another mark, that a leader must join it to its own."""
    boxes = np.array([box])
    own = distances(np.array([point]), boxes)[0, 0]
    near = np.less(distances(rivals, boxes), _CLEARER * own)
    return bool(own > _LEADER * scale or near.any())


def _line(point: Point, box: Box) -> Box:
    """The leader (x, y, x, y) from a mark to the nearest point of its label's box."""
    return point[0], point[1], min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _lines(point: Point, boxes: Array) -> Array:
    """The leaders [C, 4] from a mark to each of the boxes [C, 4]; see `_line`."""
    ends = np.clip(np.asarray(point)[None], boxes[:, :2], boxes[:, 2:])
    return np.concatenate([np.broadcast_to(point, ends.shape), ends], axis=1)


def _diagonals(boxes: Array) -> Array:
    """A horizontal line [C, 4] through the middle of each box [C, 4]; a leader that crosses it passes under the label."""
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    return np.stack([boxes[:, 0], middle, boxes[:, 2], middle], axis=1)


def _boxes_hit(lines: Array, boxes: Array) -> Array:
    """Number [C] of the boxes [N, 4] that each line [C, 4] passes through, tested at nine points of the line.

    All lines start at the same mark; boxes that contain it are not counted.
    """
    along = np.linspace(0.15, 0.95, 9)[None, :, None]
    points = lines[:, None, :2] + along * (lines[:, None, 2:] - lines[:, None, :2])
    inside = (points[:, :, None] >= boxes[None, None, :, :2]) & (points[:, :, None] <= boxes[None, None, :, 2:])
    at_start = ((lines[0, :2] >= boxes[:, :2]) & (lines[0, :2] <= boxes[:, 2:])).all(-1)
    return (inside.all(-1).any(1) & np.logical_not(at_start)).sum(1)


def _crossings(lines: Array, others: Array) -> Array:
    """Number [C] of the lines `others` [N, 4] that each line [C, 4] crosses."""
    a, b = lines[:, None, :2], lines[:, None, 2:]
    c, d = others[None, :, :2], others[None, :, 2:]
    return ((_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)).sum(1)


def _side(start: Array, end: Array, point: Array) -> Array:
    """The side of the line from start to end on which the point lies (cross product): positive on the left."""
    along, to = end - start, point - start
    return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]


def _array(boxes: Sequence[Box]) -> Array:
    return np.array(boxes, dtype=float).reshape(-1, 4)


def _others(points: Array) -> list[Array]:
    """For each of the points [N, 2] all others [N - 1, 2]."""
    return [np.delete(points, i, 0) for i in range(len(points))]


def _write(axes: Axes, mark: LabelledPoint, size: float) -> Annotation:
    """Write the label at its mark, from where `annotate` moves it."""
    return axes.annotate(
        mark.text, (mark.x, mark.y), xytext=(0, 0), textcoords="offset points",
        fontsize=size, va="center", color=mark.colour,
    )  # fmt: skip


def _lead(axes: Axes, point: Point, box: Box) -> None:
    """Draw the leader, a thin line from the mark to its label."""
    x, y, end_x, end_y = _line(point, box)
    ends = axes.transData.inverted().transform([(x, y), (end_x, end_y)])
    axes.plot(ends[:, 0], ends[:, 1], color="#5c5c5c", linewidth=0.4, zorder=1.5, scalex=False, scaley=False)


def stacked(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights for labels in one column, between `low` and `high`, in the order of `heights`, the wanted ones.

    They are at least `gap` apart (less only if there are too many labels) and otherwise as near as possible to the wanted ones.
    """
    order = sorted(range(len(heights)), key=lambda i: (heights[i], i))
    gap = min(gap, (high - low) / max(len(heights) - 1, 1))
    placed = _pressed([heights[i] for i in order], gap)
    last = len(placed) - 1
    bounded = [min(max(height, low + i * gap), high - (last - i) * gap) for i, height in enumerate(placed)]
    return [bounded[order.index(i)] for i in range(len(heights))]


def _pressed(heights: list[float], gap: float) -> list[float]:
    """The ascending heights, moved until they are at least `gap` apart.

    Labels that would be too close form a group at equal distances; its centre is the mean of their given heights.
    """
    crowds: list[tuple[float, int]] = []  # (height of the lowest label, number of labels)
    for height in heights:
        start, members = height, 1
        while crowds and crowds[-1][0] + crowds[-1][1] * gap > start:
            other, more = crowds.pop()
            start = (other * more + (start - more * gap) * members) / (more + members)
            members += more
        crowds.append((start, members))
    return [start + i * gap for start, members in crowds for i in range(members)]
