"""A few images that stand for all.

facility  the images whose sum over all images of the cosine to the nearest chosen one is largest, chosen one
          after the other (facility location, whose greedy choice is within 1 - 1/e of the best: Nemhauser,
          Wolsey and Fisher 1978). Gains only fall, so most are not computed again (Minoux 1978). The cost
          grows with the square of the number of images.
centre    each next image is the one that is farthest from all chosen ones (Gonzalez 1985); the largest
          distance is within twice the best. The cost grows with their number.

Legend: n images, D features, m chosen ones.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.embedding.curate.config import CoresetMethod
from siamtransfer.metrics.unit_rows import unit_rows

ROWS_AT_ONCE = 512


class Coreset(NamedTuple):
    """The chosen images, in the order of their choice, and how near the others are.

    Attributes:
        rows: the numbers of the m chosen images.
        nearest: float32[n]: the cosine of every image and the nearest chosen one.
    """

    rows: list[int]
    nearest: Tensor


@exact_matmul()
def choose(features: Tensor, m: int, method: CoresetMethod) -> Coreset:
    """m <= n images of features[n, D]; equal ones are chosen by their order."""
    x = unit_rows(features, torch.float32)
    return _centre(x, m) if method == "centre" else _facility(x, m)


def _centre(x: Tensor, m: int) -> Coreset:
    """Begins with the image that is nearest to the mean."""
    chosen = [int((x @ x.mean(dim=0)).argmax())]
    nearest = x @ x[chosen[0]]
    while len(chosen) < m:
        left = nearest.clone()
        left[chosen] = torch.inf
        chosen.append(int(left.argmin()))
        nearest = torch.maximum(nearest, x @ x[chosen[-1]])
    return Coreset(chosen, nearest)


def _facility(x: Tensor, m: int) -> Coreset:
    nearest = torch.full((len(x),), -1.0)
    gains = torch.cat([(rows @ x.T + 1).sum(dim=1) for rows in x.split(ROWS_AT_ONCE)])
    heap = [(-gain, row) for row, gain in enumerate(gains.tolist())]
    heapq.heapify(heap)
    chosen: list[int] = []
    current: dict[int, int] = {}  # how many were chosen when the gain of a row was last computed
    while len(chosen) < m:
        _, row = heapq.heappop(heap)
        cosines = x @ x[row]
        if current.get(row, 0) < len(chosen):
            current[row] = len(chosen)
            heapq.heappush(heap, (-float((cosines - nearest).clamp_min(0).sum()), row))
            continue
        chosen.append(row)
        nearest = torch.maximum(nearest, cosines)
    return Coreset(chosen, nearest)
