"""Linear classifiers on frozen features: multinomial logistic regression by L-BFGS, over a grid of strengths.

The objective is scikit-learn's, C Σ_i CE_i + ½‖W‖² with an unpenalised bias, so a strength C means the same
in both; it is divided by C N here, which moves no minimum. Fits are in float64, those that only choose a
strength in float32.

Legend: N samples, D features, K classes, R principal axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.evaluation.linear.principal_axes import rotate_copy, stream_axes
from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.utils.errors import UserError

CURVATURE = 0.25  # of the cross-entropy along a score, at most: p (1 - p)
KEPT_BYTES = 2**28
"""The rotated features are kept in float64 up to this size (65,536 x 512); larger ones are streamed."""

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

    def scores(self, features: Tensor | Rows) -> Tensor:
        """float64[N, K] for features[N, D], which are taken in chunks."""
        rows = Rows.of(features)
        return torch.cat([self._scores(rows.part(part)) for part in rows.parts(len(self.bias))])

    def hits(self, features: Tensor | Rows, labels: Tensor, top: int = 1) -> Tensor:
        """bool[N]: whether the label int64[N] is among the `top` best classes; no score is kept."""
        rows, top = Rows.of(features), min(top, len(self.classes))
        hits = []
        for part in rows.parts(len(self.bias)):
            best = self._scores(rows.part(part)).topk(top, dim=1).indices
            hits.append((self.classes[best] == labels[part, None]).any(dim=1))
        return torch.cat(hits)

    def _scores(self, h: Tensor) -> Tensor:
        return (h.double() - self.mean) / self.scale @ self.weight.T + self.bias


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

    Up to KEPT_BYTES (and for fewer samples than features) the rotated features are kept. Larger features are
    read again for every value of the objective, in chunks. The rotation and the scale are then applied to the
    weights: W · Aᵀ(h - m)/s = (W Aᵀ/s) · (h - m). Products of a chunk are in `dtype`; sums over chunks and
    L-BFGS itself are in float64.
    """

    def __init__(
        self,
        features: Tensor | Rows,
        labels: Tensor,
        *,
        standardise: bool = False,
        dtype: torch.dtype = torch.float64,
    ):
        self.classes, self.labels = torch.unique(labels, return_inverse=True)
        if len(self.classes) < 2:
            raise UserError("a linear probe needs labels of at least two classes in the train split")
        self.rows, self.standardise = Rows.of(features), standardise
        rotated: Tensor | None = None
        if 8 * len(self.rows) * self.rows.dim <= KEPT_BYTES or len(self.rows) < self.rows.dim:
            self.axes, rotated = rotate_copy(self.rows, standardise)
        else:
            self.axes = stream_axes(self.rows, standardise)
        if bool((self.axes.variances > LARGEST_VARIANCE).any()):
            dtype = torch.float64  # float32 would overflow in the sums over samples
        self.dtype, self.rotated = dtype, None if rotated is None else rotated.to(dtype)

    def loss(self, scores: Tensor, part: slice = slice(None)) -> Tensor:
        """What the samples `part` (all of them), with scores[n, K], add to the mean over all N."""
        return F.cross_entropy(scores, self.labels[part]) * (len(scores) / len(self.rows))

    def mean_loss(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The mean over samples at weight[K, R] of the rotated features and bias[K]; autograd follows it."""
        if self.rotated is not None:
            return self.loss(self.rotated @ weight.T + bias)
        mean_loss: Tensor = _StreamedLoss.apply(self.axes.unrotate(weight) / self.axes.scale, bias, self)
        return mean_loss

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
        penalty, axes = 1 / (strength * len(self.rows)), self.axes
        own_dtype = torch.float64 if self.rotated is None else self.dtype
        scaling = (CURVATURE * axes.variances + penalty).rsqrt().to(own_dtype)
        solution = scaling.new_zeros(len(self.classes), len(scaling) + 1)
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
            loss = self.mean_loss(weight, bias) + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(objective)
        minimum = solution.detach()
        minimum[:, :-1] *= scaling
        weight, bias = axes.unrotate(minimum[:, :-1]), minimum[:, -1].double()
        mean = axes.mean
        if not self.standardise:
            mean, bias = torch.zeros_like(axes.mean), bias - weight @ axes.mean
        return LinearClassifier(mean, axes.scale, weight, bias, self.classes, strength), minimum


class _StreamedLoss(torch.autograd.Function):
    """A problem's mean loss at weight[K, D] of the centred features and bias[K], both float64; its gradients
    are summed in the same pass over the rows."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, problem: LogisticRegression) -> Tensor:
        rows, dtype = problem.rows, problem.dtype
        narrow_weight, narrow_bias, mean = (x.to(dtype) for x in (weight, bias, problem.axes.mean))
        total, gradients = bias.new_zeros(()), (torch.zeros_like(weight), torch.zeros_like(bias))
        for part in rows.parts(len(bias)):
            h = rows.part(part)
            h = (h if dtype == torch.float64 else h.to(dtype)) - mean  # to float64 by the difference itself
            scores = torch.addmm(narrow_bias, h, narrow_weight.T).requires_grad_()
            with torch.enable_grad():
                loss = problem.loss(scores, part)
            (residual,) = torch.autograd.grad(loss, scores)
            total += loss.detach()
            gradients[0].add_(residual.T @ h)
            gradients[1].add_(residual.sum(dim=0))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, bias = ctx.saved_tensors
        return grad[0] * weight, grad[0] * bias, None


def fit_logistic(
    features: Tensor | Rows, labels: Tensor, strength: float, *, standardise: bool = False
) -> LinearClassifier:
    """Fits features[N, D] to labels int64[N] at the one strength C."""
    return LogisticRegression(features, labels, standardise=standardise).fit(strength)[0]


def probe(
    train: Tensor | Rows,
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
    rows = Rows.of(train)
    fitted, held_out = split_by_class(labels, held_out_fraction, seed)
    problem = LogisticRegression(
        rows.select(fitted), labels[fitted], standardise=standardise, dtype=torch.float32
    )
    accuracies: dict[float, float] = {}
    start = None
    for strength in sorted(strengths):
        with exact_matmul():
            classifier, start = problem.fit(strength, start=start, max_steps=200, tolerance=1e-4)
        accuracies[strength] = top_accuracy(classifier, rows.select(held_out), labels[held_out])
    del problem  # and the rotated features that it keeps
    best = max(accuracies, key=lambda c: (accuracies[c], -c))
    return ChosenClassifier(fit_logistic(train, labels, best, standardise=standardise), accuracies)


def top_accuracy(
    classifier: LinearClassifier, features: Tensor | Rows, labels: Tensor, top: int = 1
) -> float:
    """Percentage of rows whose label is among the `top` best classes; unknown labels are never right."""
    return 100 * float(classifier.hits(features, labels, top).double().mean())


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
