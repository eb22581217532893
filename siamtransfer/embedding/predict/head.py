"""What labels images: a probe with its classes, and the distance above which it does not know.

The distance of an image is one minus its cosine to the nearest labelled image. The threshold is a quantile of
the distances of the labelled images to the nearest other of them, so that about that share of images like the
labelled ones is known.

Legend: n labelled images, N images, K classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.embedding.predict.probe import Probe
from siamtransfer.metrics.temperature import probabilities
from siamtransfer.metrics.unit_rows import unit_rows


@dataclass(frozen=True)
class Head:
    """A probe of K classes and the labelled features that it was trained on.

    Attributes:
        classes: the names of the classes, in the order of the scores.
        temperature: of the probabilities.
        labelled: float32[n, D]: the labelled features, each of length one.
        threshold: the largest distance that is known.
        facts: what the head belongs to and how it was made: backbone, transform, labels, accuracy.
    """

    probe: Probe
    classes: tuple[str, ...]
    temperature: float
    labelled: Tensor
    threshold: float
    facts: dict[str, Any]

    def label(self, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float64[N, K] and distances float64[N] of features float32[N, D]."""
        return (
            probabilities(self.probe.scores(features), self.temperature),
            nearest_distances(unit_rows(features, torch.float32), self.labelled),
        )


def nearest_distances(unit: Tensor, others: Tensor) -> np.ndarray:
    """float64[N]: one minus the largest cosine of each row of unit[N, D] with the rows of others[n, D]; all
    have length one."""
    nearest: np.ndarray = (unit @ others.T).max(dim=1).values.double().numpy()
    return np.clip(1 - nearest, 0, 2)


def own_distances(unit: Tensor) -> np.ndarray:
    """float64[n]: the distance of each row of unit[n, D] to the nearest other row."""
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-1)
    nearest: np.ndarray = cosines.max(dim=1).values.double().numpy()
    return np.clip(1 - nearest, 0, 2)


def threshold_of(distances: np.ndarray, quantile: float) -> float:
    """The distance at `quantile` of distances[n]: one that occurs, the larger of two neighbours."""
    return float(np.quantile(distances, quantile, method="higher"))
