"""Linear classifiers on frozen features: multinomial logistic regression by L-BFGS, over a grid of strengths.

The objective is scikit-learn's, C Σ_i CE_i + ½‖W‖² with an unpenalised bias, so a strength C means the same
in both; it is divided by C N here, which moves no minimum. Fits are in float64, those that only choose a
strength in float32.

Legend: N samples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.utils.errors import UserError

CURVATURE = 0.25  # of the cross-entropy along a score, at most: p (1 - p)
NEGLIGIBLE = 1e-12
"""Fraction of the largest variance below which an axis holds only rounding errors; and of its mean below
which a feature's deviation does."""

LARGEST_VARIANCE = 1e30  # of an axis, for fits in float32


@dataclass
class LinearClassifier:
    """scores = (h - mean) / scale @ weight.T + bias, for features h[N, D] and `classes` int64[K]."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor
    strength: float

    def scores(self, features: Tensor) -> Tensor:
        """float64[N, K] for features[N, D]."""
        return (features.double() - self.mean) / self.scale @ self.weight.T + self.bias


@dataclass
class ChosenClassifier:
    """The classifier, and the accuracies in percent on the held-out part of train that chose its strength
    C."""

    classifier: LinearClassifier
    held_out: dict[float, float]


class LogisticRegression:
    """One problem, features[N, D] and labels int64[N] (any integers), to be solved at many strengths.

    The features are centred and rotated to their principal axes, which changes neither the minimum (the bias
    absorbs the centre, and the penalty has no direction) nor C. There the objective's curvature is nearly
    diagonal and known beforehand, CURVATURE times the variance plus the penalty's, so each axis is scaled by
    its root and L-BFGS needs tens of steps where raw features need hundreds.

    `standardise` scales every feature to unit deviation first, which makes one grid of strengths fit
    backbones of any scale.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        standardise: bool = False,
        dtype: torch.dtype = torch.float64,
    ):
        self.classes, self.labels = torch.unique(labels, return_inverse=True)
        if len(self.classes) < 2:
            raise UserError("a linear probe needs labels of at least two classes in the train split")
        h = features.double()
        if not bool(torch.isfinite(h).all()):
            raise UserError("the features hold values that are not finite, so nothing can be fitted to them")
        self.standardise, self.mean = standardise, h.mean(dim=0)
        h = h - self.mean
        deviation = h.square().mean(dim=0).sqrt()
        varies = deviation > NEGLIGIBLE * self.mean.abs()
        self.scale = torch.where(varies, deviation, 1) if standardise else torch.ones_like(deviation)
        self.axes, self.variances = _principal_axes(h / self.scale)
        if bool((self.variances > LARGEST_VARIANCE).any()):
            dtype = torch.float64  # float32 would overflow in the sums over samples
        self.rotated = (h / self.scale @ self.axes).to(dtype)

    def loss(self, scores: Tensor) -> Tensor:
        """The mean over samples of what scores[N, K] cost."""
        return F.cross_entropy(scores, self.labels)

    def fit(
        self,
        strength: float,
        *,
        start: Tensor | None = None,
        max_steps: int = 1000,
        tolerance: float = 1e-7,
    ) -> tuple[LinearClassifier, Tensor]:
        """The classifier at C = `strength`, and where it lies as a `start` for the next strength; `tolerance`
        is the largest component of the gradient left."""
        penalty = 1 / (strength * len(self.rotated))
        scaling = (CURVATURE * self.variances + penalty).rsqrt().to(self.rotated)
        solution = self.rotated.new_zeros(len(self.classes), len(scaling) + 1)
        if start is not None:
            solution.copy_(start)
            solution[:, :-1] /= scaling
        solution.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [solution],
            max_iter=max_steps,
            tolerance_grad=tolerance,
            tolerance_change=1e-14,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            weight, bias = solution[:, :-1] * scaling, solution[:, -1]
            loss = self.loss(self.rotated @ weight.T + bias) + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(objective)
        minimum = solution.detach()
        minimum[:, :-1] *= scaling
        weight, bias = minimum[:, :-1].double() @ self.axes.T, minimum[:, -1].double()
        mean = self.mean
        if not self.standardise:
            mean, bias = torch.zeros_like(self.mean), bias - weight @ self.mean
        return LinearClassifier(mean, self.scale, weight, bias, self.classes, strength), minimum


def _principal_axes(h: Tensor) -> tuple[Tensor, Tensor]:
    """(axes[D, R], variances[R]) of centred features[N, D], without those that do not vary."""
    n, d = h.shape
    if n >= d:
        variances, axes = torch.linalg.eigh(h.T @ h / n)
        kept = variances > NEGLIGIBLE * variances[-1]
        return axes[:, kept], variances[kept]
    variances, sides = torch.linalg.eigh(h @ h.T / n)
    kept = variances > NEGLIGIBLE * variances[-1]
    return h.T @ sides[:, kept] / (n * variances[kept]).sqrt(), variances[kept]


def fit_logistic(
    features: Tensor, labels: Tensor, strength: float, *, standardise: bool = False
) -> LinearClassifier:
    """Fits features[N, D] to labels int64[N] at the one strength C."""
    return LogisticRegression(features, labels, standardise=standardise).fit(strength)[0]


def probe(
    train: Tensor,
    labels: Tensor,
    *,
    strengths: Sequence[float],
    standardise: bool = False,
    held_out_fraction: float = 0.1,
    seed: int = 0,
) -> ChosenClassifier:
    """Chooses C on a held-out part of train and refits on all of train.

    Strengths are tried from the strongest penalty to the weakest, each started from the one before; of equal
    accuracies the strongest penalty is taken.
    """
    if len(strengths) == 1:
        return ChosenClassifier(fit_logistic(train, labels, strengths[0], standardise=standardise), {})
    fitted, held_out = split_by_class(labels, held_out_fraction, seed)
    problem = LogisticRegression(train[fitted], labels[fitted], standardise=standardise, dtype=torch.float32)
    accuracies: dict[float, float] = {}
    start = None
    for strength in sorted(strengths):
        with exact_matmul():
            classifier, start = problem.fit(strength, start=start, max_steps=200, tolerance=1e-4)
        accuracies[strength] = top_accuracy(classifier, train[held_out], labels[held_out])
    best = max(accuracies, key=lambda c: (accuracies[c], -c))
    return ChosenClassifier(fit_logistic(train, labels, best, standardise=standardise), accuracies)


def top_accuracy(classifier: LinearClassifier, features: Tensor, labels: Tensor, top: int = 1) -> float:
    """Percentage of rows whose label is among the `top` best classes; unknown labels are never right."""
    best = classifier.scores(features).topk(min(top, len(classifier.classes)), dim=1).indices
    return 100 * float((classifier.classes[best] == labels[:, None]).any(dim=1).double().mean())


def split_by_class(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices int64 (fitted, held out): `fraction` of every class of two or more is held out, by `seed`.

    Raises:
        UserError: no class has two samples, so nothing can be held out.
    """
    generator = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    y = labels.cpu().numpy()
    for label in np.unique(y):
        members = generator.permutation(np.flatnonzero(y == label))
        chosen.append(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    held_out = np.sort(np.concatenate(chosen))
    if not len(held_out):
        raise UserError(
            "no class has two samples in train, so no strength can be chosen: give one --strengths"
        )
    fitted = np.setdiff1d(np.arange(len(y)), held_out)
    return torch.from_numpy(fitted), torch.from_numpy(held_out)
