"""Images that lie far from all others: by the distance to the k-th nearest neighbour.

Ramaswamy, Rastogi and Shim, Efficient Algorithms for Mining Outliers from Large Data Sets (SIGMOD 2000); the
robust limit is the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993).

Legend: n images, D features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.knn.search import search

LIMIT = 3.5
"""Robust standard deviations beyond the median from which an image is an outlier, as Iglewicz and Hoaglin
recommend."""
NORMAL = 1.4826  # a normal distribution's standard deviation in median absolute deviations


class Outliers(NamedTuple):
    """The images that are called outliers, the farthest first.

    Attributes:
        rows: int64[m].
        distances: float64[n], of every image: one minus the cosine of its k-th nearest neighbour.
        scores: float64[n]: robust standard deviations beyond the median; infinite where all others are alike.
        nearest: int64[n]: the nearest neighbour of every image.
        limit: distance from which an image counts; None where a share was asked for.
        k: the neighbour that was taken.
    """

    rows: np.ndarray
    distances: np.ndarray
    scores: np.ndarray
    nearest: np.ndarray
    limit: float | None
    k: int


def find_outliers(features: Tensor, k: int, share: float | None) -> Outliers:
    """The outliers among n >= 3 images: the `share` that is farthest out, rounded up, or those beyond the
    robust limit. k is at most n - 1."""
    k = min(k, len(features) - 1)
    cosines, found = search(features, features, k, leave_out=torch.arange(len(features)))
    distances = 1 - cosines[:, -1].double().numpy()
    median = np.median(distances)
    deviation = NORMAL * np.median(np.abs(distances - median))
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.nan_to_num((distances - median) / deviation, nan=0.0, posinf=np.inf, neginf=-np.inf)
    order = np.argsort(-distances, kind="stable")
    if share is not None:
        rows, limit = order[: math.ceil(share * len(features))], None
    else:
        limit = float(median + LIMIT * deviation)
        rows = order[distances[order] > limit]
    return Outliers(rows, distances, scores, found[:, 0].numpy(), limit, k)
