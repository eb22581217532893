"""k-means segmentation: clusters of patches, found without labels and matched with classes for the score.

As many clusters as classes are matched one to one on the scored split itself, which is how this is published
(PiCIE, arXiv 2103.17070; STEGO, arXiv 2203.08414): the labels of the scored split name the clusters. More
clusters than classes are matched many to one.

Legend: n patches, D features, C classes, K clusters.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.utils.errors import UserError

Matching = Literal["pixels", "iou"]
_MINI_BATCH = 4096


def fit_clusters(train: Patches, config: SegmentationConfig, device: torch.device) -> list[ClusterProbe]:
    """One probe, named `kmeans`, or `kmeans/clusters=500` where `config.clusters` is not the number of
    classes. Rows are scaled to length one first.

    The clustering runs on the CPU, the scores on `device`. It does not look at the labels of `train`, but
    patches whose pixels are all ignored are no part of it.

    Raises:
        UserError: there are fewer patches than clusters.
    """
    classes = len(train.classes)
    clusters = classes if config.clusters is None else config.clusters
    if len(train.features) < clusters:
        raise UserError(
            f"{len(train.features):,} patches cannot make {clusters:,} clusters: take fewer --clusters, or "
            "more train images or --patches-per-image"
        )
    z = _unit_rows(train.features)
    centres = cluster_centres(z, clusters, config.restarts, config.seed, config.clustering)
    protocol = {
        "clusters": clusters,
        "algorithm": config.clustering,
        "restarts": config.restarts,
        "seed": config.seed,
        "rows": "length one",
        "matching": "many to one, most pixels"
        if clusters > classes
        else f"one to one, most {config.matching}",
        "matched_on": "the scored split",
    }
    return [ClusterProbe(torch.from_numpy(centres).to(device), classes, config.matching, protocol)]


def cluster_centres(z: np.ndarray, clusters: int, restarts: int, seed: int, algorithm: str) -> np.ndarray:
    """float32[K, D]: centres of float32[n, D] by scikit-learn, the best of `restarts` starts by k-means++.

    `lloyd` moves every centre to the mean of all its rows until they hardly move; `minibatch` looks at 4096
    rows at a time, and chooses the start by a sample. `z` is changed by rounding: no copy of it is made.
    """
    method = (
        KMeans(clusters, n_init=restarts, random_state=seed % 2**32, copy_x=False)
        if algorithm == "lloyd"
        else MiniBatchKMeans(clusters, n_init=restarts, random_state=seed % 2**32, batch_size=_MINI_BATCH)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        centres: np.ndarray = method.fit(z).cluster_centers_
    return centres.astype(np.float32)


def _unit_rows(features: Tensor) -> np.ndarray:
    """float32[n, D]: a copy with rows of length one, and no other memory that grows with n."""
    z = np.empty(tuple(features.shape), np.float32)
    for begin in range(0, len(z), _MINI_BATCH):
        rows = slice(begin, begin + _MINI_BATCH)
        z[rows] = unit_rows(features[rows], torch.float32).numpy()
    return z


class ClusterProbe:
    """The nearest centre; see `PatchProbe`."""

    def __init__(self, centres: Tensor, classes: int, matching: Matching, protocol: dict[str, Any]):
        self.outputs, self.protocol = len(centres), protocol
        self.name = "kmeans" if len(centres) == classes else f"kmeans/clusters={len(centres)}"
        self._centres, self._classes, self._matching = centres, classes, matching
        self._offsets = (centres**2).sum(dim=1)

    def scores(self, features: Tensor) -> Tensor:
        """float32[n, K] on the device of `features`: minus the squared distance of the row of length one to
        each centre, but for the 1 that all have in common: 2 z·c - |c|².

        This is linear in z, so enlarged scores are those of enlarged features.
        """
        z = unit_rows(features, torch.float32).to(self._centres.device)
        return (2 * z @ self._centres.T - self._offsets).to(features.device)

    def to(self, device: torch.device) -> ClusterProbe:
        """The probe with its centres on `device`."""
        return ClusterProbe(self._centres.to(device), self._classes, self._matching, self.protocol)

    def classes_of(self, counts: np.ndarray) -> np.ndarray:
        """int64[K]: see `match_clusters`."""
        return match_clusters(counts, self._matching)


def match_clusters(counts: np.ndarray, matching: Matching = "pixels") -> np.ndarray:
    """int64[K]: the class of every cluster, from the pixels int64[C, K] by true class and cluster.

    With K = C clusters every class has one, and the pixels that agree (`pixels`), or the sum of the
    intersections over unions (`iou`), are as many as possible. With K < C some classes have no cluster. With
    K > C each cluster takes the class of most of its pixels, whatever `matching`.
    """
    classes, clusters = counts.shape
    if clusters > classes:
        return counts.argmax(axis=0)
    value = counts.astype(np.float64)
    if matching == "iou":
        union = counts.sum(axis=0) + counts.sum(axis=1, keepdims=True) - counts
        value = value / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(value, maximize=True)
    matched = np.empty(clusters, np.int64)
    matched[columns] = rows
    return matched
