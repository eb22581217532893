"""Names beside the points of a figure, placed so that they do not cover each other.

They are worked out for the figure of a phone, where room is scarcest. On a wider page the same points lie
farther apart, and names that were apart stay so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from siamtransfer.reports.charts import TEXT, plain_text

WIDTH, HEIGHT = 300.0, 270.0
"""Pixels of the inside of a figure on a phone."""
LETTER, LINE = 6.2, 15.0
"""Pixels of a letter and of a line of text there."""
BESIDE = 9
"""Pixels between a point and its name."""
LONGEST = 20
"""Letters of a name; the middle of a longer one is left out."""
STEPS = (0, 1, -1, 2, -2, 3, -3, 4, -4)
"""Lines by which a name is moved up, the nearest first."""


class _Box(NamedTuple):
    """A rectangle in pixels; y grows upwards."""

    left: float
    right: float
    low: float
    high: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.low < other.high
            and other.low < self.high
        )


class Extent(NamedTuple):
    """The ends of an axis."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies on the axis, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def extent_of(values: Sequence[float], padding: float = 0.08) -> Extent:
    """An axis that has room for all finite values and some around them."""
    known = [value for value in values if math.isfinite(value)]
    room = padding * (max(known) - min(known)) or max(abs(known[0]), 1.0) / 10
    return Extent(min(known) - room, max(known) + room)


def point_labels(
    names: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    bars: Sequence[tuple[float, float]],
    x_extent: Extent,
    y_extent: Extent,
) -> list[dict[str, Any]]:
    """Plotly's annotations that name points.

    Args:
        names: one a point.
        x, y: where the points are.
        bars: the ends of the vertical bar through each point; NaN where it has none.
        x_extent, y_extent: what the axes show.
    """
    points = [
        (WIDTH * x_extent.share(at), HEIGHT * y_extent.share(value)) for at, value in zip(x, y, strict=True)
    ]
    obstacles = [_bar(point, ends, y_extent) for point, ends in zip(points, bars, strict=True)]
    placed: list[_Box] = []
    labels = []
    for name, at, value, point in zip(names, x, y, points, strict=True):
        text = plain_text(name, LONGEST)
        side, step, box = min(
            _places(point, min(len(name), LONGEST) * LETTER),
            key=lambda place: _harm(place[1], place[2], placed, obstacles),
        )
        placed.append(box)
        labels.append(
            {
                "x": at,
                "y": value,
                "text": text,
                "showarrow": False,
                "xanchor": "left" if side > 0 else "right",
                "xshift": side * BESIDE,
                "yshift": step * LINE,
                "font": {"color": TEXT},
            }
        )
    return labels


def _bar(point: tuple[float, float], ends: tuple[float, float], extent: Extent) -> _Box:
    across, up = point
    low, high = (HEIGHT * extent.share(end) if math.isfinite(end) else up for end in ends)
    return _Box(across - 5, across + 5, min(low, up - 5), max(high, up + 5))


def _places(point: tuple[float, float], width: float) -> list[tuple[int, int, _Box]]:
    """Where a name may stand: the side (1 right, -1 left), by how many lines it is moved, and its box."""
    across, up = point
    sides = (1, -1) if across < WIDTH / 2 else (-1, 1)
    found = []
    for step in STEPS:
        for side in sides:
            left = across + BESIDE if side > 0 else across - BESIDE - width
            middle = up + step * LINE
            found.append((side, step, _Box(left, left + width, middle - LINE / 2, middle + LINE / 2)))
    return found


def _harm(step: int, box: _Box, placed: Sequence[_Box], obstacles: Sequence[_Box]) -> float:
    """How bad a place is: names on names and outside the figure are worst, then names on bars, then names far
    from their points."""
    outside = box.left < 0 or box.right > WIDTH or box.low < 0 or box.high > HEIGHT
    covered = sum(box.meets(other) for other in placed)
    crossed = sum(box.meets(other) for other in obstacles)
    return 100.0 * covered + 100.0 * outside + 3.0 * crossed + abs(step)
