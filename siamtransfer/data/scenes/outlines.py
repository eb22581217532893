"""Outlines of masks as polygons."""

from __future__ import annotations

import numpy as np


def outline(mask: np.ndarray, *, edges: bool = False) -> np.ndarray:
    """A polygon int64[n,2] of points x, y around a mask bool[H,W] that has a pixel.

    It goes down along the first pixel of every row and up along the last one, so gaps within a row are inside
    it. The points are pixels; with `edges` they are corners of pixels, in continuous coordinates.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    if edges:
        rows, left, right = np.stack([rows, rows + 1], 1).ravel(), left.repeat(2), right.repeat(2) + 1
    down, up = np.stack([left, rows], 1), np.stack([right, rows], 1)[::-1]
    return np.concatenate([down, up])
