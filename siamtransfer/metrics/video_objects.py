"""How well an object is followed through a video: J and F as the DAVIS challenges measure them.

J, the region similarity, is the Jaccard index of two masks. F, the contour accuracy, is the F-measure of
their boundaries, of which pixels agree that are at most BOUND of the image's diagonal apart. Definitions:
Perazzi et al., CVPR 2016, section 5, and the public program davisvideochallenge/davis2017-evaluation, whose
rules for empty masks, image borders and the quarters of the decay are followed here.

Legend: H and W pixels, T frames.
"""

from __future__ import annotations

from math import ceil, hypot, isqrt
from typing import NamedTuple

import numpy as np

BOUND = 0.008
"""Share of the image's diagonal; its pixels are rounded up."""
RECALLED = 0.5
"""Frames above this count as recalled."""
QUARTERS = 4


class ObjectScore(NamedTuple):
    """J or F of an object over the frames of its video, from 0 to 1; the decay from -1 to 1.

    Attributes:
        mean: over the frames.
        recall: the share of frames above RECALLED.
        decay: the mean of the first quarter of the frames minus that of the last.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(truth: np.ndarray, predicted: np.ndarray) -> float:
    """J of two masks bool[H, W]; 1 where both are empty."""
    union = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / union if union else 1.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """bool[H, W]: the pixels of mask bool[H, W] that differ from the pixel to the right, below, or right and
    below. In the last row and in the last column only the neighbour inside the image counts, so an object
    that is cut off by the image's border has no boundary there."""
    edges = np.zeros_like(mask)
    edges[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edges[:-1] |= mask[:-1] ^ mask[1:]
    edges[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edges


def widened(points: np.ndarray, radius: int) -> np.ndarray:
    """bool[H, W]: the pixels at most `radius` away (Euclidean) from a true pixel of points bool[H, W]."""
    height, reach = len(points), np.zeros_like(points)
    rows = points.copy()  # widened along the rows by `half` pixels
    halves = [isqrt(radius**2 - down**2) for down in range(radius + 1)]
    for half in range(radius + 1):
        if half:
            rows[:, half:] |= points[:, :-half]
            rows[:, :-half] |= points[:, half:]
        for down in (d for d in range(min(radius + 1, height)) if halves[d] == half):
            reach[down:] |= rows[: height - down]
            reach[: height - down] |= rows[down:]
    return reach


def contour_accuracy(truth: np.ndarray, predicted: np.ndarray, bound: float = BOUND) -> float:
    """F of two masks bool[H, W].

    Precision is the share of the predicted boundary's pixels within `bound` of the true one, recall that of
    the true boundary's within `bound` of the predicted one. Without a boundary in both, F is 1; in one of
    them, 0.
    """
    lines = boundary(truth), boundary(predicted)
    counts = [np.count_nonzero(line) for line in lines]
    if not all(counts):
        return float(not any(counts))
    radius = ceil(bound * hypot(*truth.shape))
    shown = lines[0] | lines[1]
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    true, found = (line[box] for line in lines)
    recall = np.count_nonzero(true & widened(found, radius)) / counts[0]
    precision = np.count_nonzero(found & widened(true, radius)) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def over_frames(values: np.ndarray) -> ObjectScore:
    """Mean, recall and decay of values float64[T], T from 1. Neighbouring quarters share a frame."""
    ends = np.round(np.linspace(1, len(values), QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = values[ends[0] : ends[1] + 1], values[ends[-2] : ends[-1] + 1]
    return ObjectScore(
        float(values.mean()), float((values > RECALLED).mean()), float(first.mean() - last.mean())
    )
