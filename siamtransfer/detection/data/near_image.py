"""Where coordinates may lie: an object may reach beyond its image, but not to the end of the world."""

from __future__ import annotations

import numpy as np

FAR = 10
"""How many sides of its image, the longer one, a coordinate may lie away from it. Cut off by the edge of the
image, objects of tiles and crops reach a few sides beyond; a billion is a mistake, and takes all memory where
a mask is drawn."""
EDGE = 1
"""Pixels beyond an image that are rounding."""


def far(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which coordinates of points[m,2] (x, y) are far from their images, or are no numbers: bool[m,2].

    size: [m,2], width and height of the image of each point.
    """
    room = FAR * size.max(axis=1, keepdims=True)
    return np.asarray(~((points >= -room) & (points <= size + room)))


def beyond(least: np.ndarray, most: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which objects reach more than EDGE beyond their images: bool[n]. least, most: [n,2], x and y of their
    corners; size: [n,2], width and height."""
    return np.asarray(((least < -EDGE) | (most > size + EDGE)).any(axis=1))
