"""Linear classifiers on frozen features: multinomial logistic regression by L-BFGS.

The objective is scikit-learn's, C Σ_i CE_i + ½‖W‖² with an unpenalised bias, so a strength C means the same
in both; it is divided by C N here, which moves no minimum. All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.errors import UserError


@dataclass
class LinearClassifier:
    """scores = (h - mean) / scale @ weight.T + bias, for features h[N, D] and `classes` int64[C]."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor
    strength: float

    def scores(self, features: Tensor) -> Tensor:
        """float64[N, C] for features[N, D]."""
        return (features.double() - self.mean) / self.scale @ self.weight.T + self.bias


@dataclass
class ProbeResult:
    """A probe's outcome: accuracies in percent, and the strength C that the held-out part of train chose."""

    classifier: LinearClassifier
    top1: float
    top5: float
    strength: float
    held_out: dict[float, float]


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    strength: float,
    *,
    standardise: bool = False,
    start: LinearClassifier | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-7,
) -> LinearClassifier:
    """Fits features[N, D] to labels int64[N] (any integers) at C = `strength`, from `start` if given.

    `standardise` scales every feature to zero mean and unit deviation first, which makes one grid of
    strengths fit backbones of any scale.
    """
    classes, y = torch.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError("a linear probe needs labels of at least two classes in the train split")
    h = features.double()
    mean = h.mean(dim=0) if standardise else torch.zeros(h.shape[1], dtype=h.dtype, device=h.device)
    scale = h.std(dim=0, correction=0) if standardise else torch.ones_like(mean)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    h = (h - mean) / scale
    weight = torch.zeros(len(classes), h.shape[1], dtype=h.dtype, device=h.device)
    bias = torch.zeros(len(classes), dtype=h.dtype, device=h.device)
    if start is not None:
        weight.copy_(start.weight)
        bias.copy_(start.bias)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_steps,
        tolerance_grad=tolerance,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(h @ weight.T + bias, y) + weight.square().sum() / (2 * strength * len(h))
        loss.backward()
        return loss

    optimizer.step(objective)
    return LinearClassifier(mean, scale, weight.detach(), bias.detach(), classes, strength)


def probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    strengths: Sequence[float],
    held_out_share: float = 0.1,
    seed: int = 0,
) -> ProbeResult:
    """Chooses C on a held-out part of train, refits on all of train, and scores the test set once.

    Strengths are tried from the weakest fit to the strongest, each started from the one before.
    """
    fitting, holding = split_by_class(train_labels, held_out_share, seed)
    held_out: dict[float, float] = {}
    classifier: LinearClassifier | None = None
    if len(strengths) > 1:
        for strength in sorted(strengths):
            classifier = fit_logistic(
                train[fitting],
                train_labels[fitting],
                strength,
                standardise=True,
                start=classifier,
                max_steps=200,
                tolerance=1e-5,
            )
            held_out[strength] = top_accuracy(classifier, train[holding], train_labels[holding])
        best = max(held_out, key=lambda c: (held_out[c], -c))
    else:
        best = strengths[0]
    final = fit_logistic(train, train_labels, best, standardise=True)
    return ProbeResult(
        final,
        top_accuracy(final, test, test_labels),
        top_accuracy(final, test, test_labels, top=5),
        best,
        held_out,
    )


def top_accuracy(classifier: LinearClassifier, features: Tensor, labels: Tensor, top: int = 1) -> float:
    """Percentage of rows whose label is among the `top` best classes; unknown labels are never right."""
    best = classifier.scores(features).topk(min(top, len(classifier.classes)), dim=1).indices
    return 100 * float((classifier.classes[best] == labels[:, None]).any(dim=1).double().mean())


def split_by_class(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (fitting, held out): `share` of every class of two or more is held out, by `seed`.

    Raises:
        UserError: no class has two samples, so nothing can be held out.
    """
    generator = np.random.default_rng(seed)
    held: list[np.ndarray] = []
    y = labels.numpy()
    for label in np.unique(y):
        members = generator.permutation(np.flatnonzero(y == label))
        held.append(members[: min(max(1, round(share * len(members))), len(members) - 1)])
    holding = np.sort(np.concatenate(held))
    if not len(holding):
        raise UserError(
            "no class has two samples in train, so no strength can be chosen: give one --strengths"
        )
    fitting = np.setdiff1d(np.arange(len(y)), holding)
    return torch.from_numpy(fitting), torch.from_numpy(holding)
