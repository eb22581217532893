"""Scores that say how known an image looks, from frozen features and a linear head; higher is more known.

- `msp`: the highest softmax probability (Hendrycks & Gimpel 2017).
- `max_logit`: the highest logit (Hendrycks et al. 2022).
- `energy`: the log of the summed exponentials of the logits, at temperature 1 (Liu et al. 2020).
- `mahalanobis`: minus the squared Mahalanobis distance to the nearest class mean, with one covariance within
  the classes (Lee et al. 2018, on the last features, without their perturbation of the input).
- `relative_mahalanobis`: the same, less the distance to the mean of all with the covariance of all (Ren et
  al. 2021).
- `knn`: minus the distance to the k-th nearest train feature, of features of length one (Sun et al. 2022).
- `vim`: the energy less a virtual logit, the scaled length of what lies outside the principal subspace of
  the train features (Wang et al. 2022). The subspace has 1000 dimensions for features of 2048 or more, 512
  for 768 or more, and half of the features' otherwise, as in the authors' code.

Legend: N samples, D features, K classes, R directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.knn.search import search
from siamtransfer.evaluation.linear.logistic import LinearClassifier
from siamtransfer.evaluation.linear.rows import Rows

SCORES = ("msp", "max_logit", "energy", "mahalanobis", "relative_mahalanobis", "knn", "vim")
LEAST_VARIANCE = 1e-10
"""Of the largest: directions with less are rounding of float32 features, and a distance leaves them out."""


@dataclass(frozen=True)
class Gaussians:
    """The train features as a normal distribution a class, and as one of all.

    Attributes:
        means: float64[K, D]; `mean` float64[D] is that of all.
        within: float64[D, D], the covariance of the features around the means of their classes.
        total: float64[D, D], that around the mean of all. Both are divided by N.
    """

    means: Tensor
    mean: Tensor
    within: Tensor
    total: Tensor

    @classmethod
    def fit(cls, features: Rows, labels: Tensor, classes: int) -> Gaussians:
        """Of features[N, D] with labels int64[N], numbers from 0 that all occur."""
        sums = torch.zeros(classes, features.dim, dtype=torch.float64, device=features.device)
        for part in features.parts(classes):
            sums.index_add_(0, labels[part], features.part(part).double())
        counts = torch.bincount(labels, minlength=classes).double()
        means, mean = sums / counts[:, None], sums.sum(dim=0) / len(labels)
        within = sums.new_zeros(features.dim, features.dim)
        for part in features.parts(classes):
            centred = features.part(part).double() - means[labels[part]]
            within.addmm_(centred.T, centred)
        within /= len(labels)
        between = (means - mean) * (counts / len(labels)).sqrt()[:, None]
        return cls(means, mean, within, within + between.T @ between)


@dataclass(frozen=True)
class Distances:
    """Squared Mahalanobis distances to some means: Euclidean ones of z = h @ projection[D, R]."""

    projection: Tensor
    places: Tensor

    @classmethod
    def of(cls, means: Tensor, covariance: Tensor) -> Distances:
        """To means[K, D], with the pseudo-inverse of a covariance[D, D]."""
        variances, axes = torch.linalg.eigh(covariance)
        kept = variances > LEAST_VARIANCE * variances[-1].clamp(min=torch.finfo(torch.float64).tiny)
        projection = axes[:, kept] / variances[kept].sqrt()
        return cls(projection, means @ projection)

    def nearest(self, h: Tensor) -> Tensor:
        """float64[N]: the squared distance of h[N, D] to the nearest mean."""
        return torch.cdist(h @ self.projection, self.places).amin(dim=1).square()


@dataclass(frozen=True)
class VirtualLogit:
    """alpha times the length of (h - origin) @ rest[D, R]."""

    origin: Tensor
    rest: Tensor
    alpha: float
    dimensions: int

    @classmethod
    def fit(cls, features: Rows, gaussians: Gaussians, head: LinearClassifier) -> VirtualLogit:
        """The origin is where the head's logits of the features are smallest, -W⁺b; alpha makes the virtual
        logit of the train features as large on average as their highest logit."""
        weight = head.weight / head.scale
        bias = head.bias - weight @ head.mean
        origin = -torch.linalg.pinv(weight) @ bias
        moved = gaussians.mean - origin
        _, axes = torch.linalg.eigh(gaussians.total + torch.outer(moved, moved))
        dimensions = principal_dimensions(features.dim)
        rest = axes[:, : features.dim - dimensions]
        logits = lengths = 0.0
        for part in features.parts(len(bias)):
            h = features.part(part).double()
            logits += float((h @ weight.T + bias).amax(dim=1).sum())
            lengths += float(((h - origin) @ rest).norm(dim=1).sum())
        return cls(origin, rest, logits / lengths if lengths > 0 else 0.0, dimensions)

    def of(self, h: Tensor) -> Tensor:
        """float64[N] of h[N, D]."""
        return self.alpha * ((h - self.origin) @ self.rest).norm(dim=1)


def principal_dimensions(features: int) -> int:
    """The dimensions of ViM's principal subspace for so many features."""
    if features >= 2048:
        return 1000
    return 512 if features >= 768 else features // 2


@dataclass(frozen=True)
class Detectors:
    """All scores at once, fitted to the train features and the head on them."""

    train: Rows
    head: LinearClassifier
    classes: Distances
    all: Distances
    virtual: VirtualLogit
    k: int

    @classmethod
    def fit(cls, train: Rows, labels: Tensor, head: LinearClassifier, k: int) -> Detectors:
        """To features[N, D] with labels int64[N], numbers from 0 that all occur; `k` is at most N."""
        gaussians = Gaussians.fit(train, labels, len(head.bias))
        return cls(
            train,
            head,
            Distances.of(gaussians.means, gaussians.within),
            Distances.of(gaussians.mean[None], gaussians.total),
            VirtualLogit.fit(train, gaussians, head),
            k,
        )

    def scores(self, features: Rows) -> dict[str, np.ndarray]:
        """float64[N] of features[N, D] for each of SCORES."""
        parts = [self._of(features.part(part).double()) for part in features.parts(len(self.head.bias))]
        found = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        cosines = search(self.train.features, features.features.to(self.train.features.device), self.k)[0]
        found["knn"] = -(2 - 2 * cosines[:, -1].double()).clamp(min=0).sqrt().cpu().numpy()
        return {name: found[name] for name in SCORES}

    def _of(self, h: Tensor) -> dict[str, Tensor]:
        """All but `knn`, of h[n, D]."""
        logits = self.head.scores(h)
        energy, nearest = logits.logsumexp(dim=1), self.classes.nearest(h)
        return {
            "msp": logits.softmax(dim=1).amax(dim=1),
            "max_logit": logits.amax(dim=1),
            "energy": energy,
            "mahalanobis": -nearest,
            "relative_mahalanobis": self.all.nearest(h) - nearest,
            "vim": energy - self.virtual.of(h),
        }
