"""A classifier from few labels: the nearest class mean or logistic regression, as cross-validation says.

Features have length one and their mean is taken off, which needs no labels. Class means are best while there
are some eight labels a class or fewer, logistic regression above; so the two compete, the regression at
several strengths, by the cross-entropy of their calibrated probabilities in cross-validation. Where most
classes have one or two labels, the class mean is taken without a choice. The accuracy that is reported is
that of images whose labels chose nothing: with up to NESTED labels and NESTED_CELLS labels times
classes the choice is made again within each fold's training part.

Legend: n labelled images, N any, K classes, D features.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from siamtransfer.metrics.temperature import calibrate
from siamtransfer.metrics.unit_rows import unit_rows

STRENGTHS = (10.0, 100.0)
"""Values of scikit-learn's C, for centred features whose mean square length is one."""
FOLDS = 5
FEW = 3  # labels of a class, below which its mean is all that can be learnt
NESTED = 1000  # labels, above which a choice among three classifiers moves the accuracy by nothing
NESTED_CELLS = 20_000  # labels times classes, above which the choice would be repeated for minutes
UNCALIBRATED = 0.07  # temperature of cosines where nothing can be held out, as for kNN (Wu et al. 2018)

Kind = Literal["logistic", "class-mean"]
Choice = float | None
"""A strength of the regression; None for class means."""


@dataclass(frozen=True)
class Probe:
    """scores = x @ weight.T + bias in float64, where x is h of length one minus `mean`; of `class-mean` x has
    length one, too, and the scores are cosines to the classes' means.

    Attributes:
        mean: float64[D].
        weight, bias: float64[K, D] and float64[K].
        strength: scikit-learn's C; None for class means.
    """

    kind: Kind
    mean: Tensor
    weight: Tensor
    bias: Tensor
    strength: Choice = None

    def scores(self, features: Tensor) -> np.ndarray:
        """float64[N, K] of features[N, D]."""
        x = unit_rows(features, torch.float64) - self.mean
        if self.kind == "class-mean":
            x = unit_rows(x, torch.float64)
        scores: np.ndarray = (x @ self.weight.T + self.bias).numpy()
        return scores


@dataclass(frozen=True)
class FittedProbe:
    """A probe, and what cross-validation within the labelled images says of it.

    Attributes:
        temperature: of the probabilities.
        calibrated: whether it was chosen on held-out labels; no class may have had a second label.
        held_out: bool[n]: images that were held out once; those with the only label of a class never are.
        scores: float64[n, K]: scores of the held-out images by classifiers that have not seen them.
        predicted: int64[n]: classes of the held-out images, where their labels have chosen nothing.
    """

    probe: Probe
    temperature: float
    calibrated: bool
    held_out: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray


def fit_probe(features: Tensor, labels: np.ndarray, classes: int, *, seed: int = 0) -> FittedProbe:
    """Fits features float32[n, D] to labels int64[n], which name every one of `classes` at least once."""
    counts = np.bincount(labels, minlength=classes)
    few = (counts < FEW).sum() > classes / 2
    choices: tuple[Choice, ...] = (None,) if few else (None, *STRENGTHS)
    folds = fold_numbers(labels, seed, len(labels) if few else FOLDS)
    held_out = folds >= 0
    if not held_out.any():
        probe = _Problem(features, labels).fit(None)
        return FittedProbe(probe, UNCALIBRATED, False, held_out, np.zeros((len(labels), classes)), labels)
    scores = _out_of_fold(features, labels, folds, choices)
    best = _best(scores, labels, held_out)
    predicted = scores[best].argmax(axis=1)
    if len(choices) > 1 and len(labels) <= min(NESTED, NESTED_CELLS / classes):
        predicted = _nested(features, labels, folds, choices, seed)
    temperature, _ = calibrate(scores[best][held_out], labels[held_out])
    probe = _Problem(features, labels).fit(best)
    return FittedProbe(probe, temperature, True, held_out, scores[best], predicted)


def fold_numbers(labels: np.ndarray, seed: int, count: int = FOLDS) -> np.ndarray:
    """int64[n]: which of `count` folds holds each image out, a class spread evenly over them; -1 for the only
    label of a class, so that every class is in every training part."""
    generator = np.random.default_rng(seed)
    folds, begin = np.full(len(labels), -1), 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            folds[members] = (begin + np.arange(len(members))) % count
            begin += len(members)
    return folds


def _parts(folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The indices (seen, held out) of every fold."""
    for fold in np.unique(folds[folds >= 0]):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def _out_of_fold(
    features: Tensor, labels: np.ndarray, folds: np.ndarray, choices: tuple[Choice, ...]
) -> dict[Choice, np.ndarray]:
    """For every choice the scores float64[n, K] of each image by the classifier that has not seen it; zeros
    where the fold is -1."""
    shape = len(labels), int(labels.max()) + 1
    scores = {choice: np.zeros(shape) for choice in choices}
    for seen, held_out in _parts(folds):
        problem = _Problem(features[seen], labels[seen])
        for choice in choices:
            scores[choice][held_out] = problem.fit(choice).scores(features[held_out])
    return scores


def _best(scores: dict[Choice, np.ndarray], labels: np.ndarray, held_out: np.ndarray) -> Choice:
    """The choice whose calibrated probabilities have the lowest cross-entropy; the first of equals."""
    return min(scores, key=lambda choice: calibrate(scores[choice][held_out], labels[held_out])[1])


def _nested(
    features: Tensor, labels: np.ndarray, folds: np.ndarray, choices: tuple[Choice, ...], seed: int
) -> np.ndarray:
    """int64[n]: the class of each held-out image by a classifier that was chosen without it."""
    predicted = np.zeros_like(labels)
    for seen, held_out in _parts(folds):
        inner = fold_numbers(labels[seen], seed)
        best: Choice = None
        if (inner >= 0).any():
            scores = _out_of_fold(features[seen], labels[seen], inner, choices)
            best = _best(scores, labels[seen], inner >= 0)
        probe = _Problem(features[seen], labels[seen]).fit(best)
        predicted[held_out] = probe.scores(features[held_out]).argmax(axis=1)
    return predicted


class _Problem:
    """features[n, D] of length one and centred, and labels int64[n] of all classes, to be fitted in several
    ways. With fewer images than features the fits are in the n dimensions that the images span, where a
    penalty on the weights is the same."""

    def __init__(self, features: Tensor, labels: np.ndarray):
        unit = unit_rows(features, torch.float64)
        self.mean, self.labels = unit.mean(dim=0), labels
        self.x = unit - self.mean
        self.scale = float(self.x.square().sum(dim=1).mean().sqrt()) or 1.0

    @cached_property
    def _axes(self) -> Tensor | None:
        """float64[n, D]: the axes that fewer images than features span; None where there are more.

        They are found when they are needed: class means do without, and there may be a fold for each label.
        """
        n, dim = self.x.shape
        return torch.linalg.svd(self.x, full_matrices=False).Vh if n < dim else None

    def fit(self, choice: Choice) -> Probe:
        """The class means, or the regression at a strength."""
        return self._class_means() if choice is None else self._logistic(choice)

    def _class_means(self) -> Probe:
        x, classes = unit_rows(self.x, torch.float64), int(self.labels.max()) + 1
        sums = x.new_zeros(classes, x.shape[1]).index_add_(0, torch.from_numpy(self.labels), x)
        return Probe("class-mean", self.mean, unit_rows(sums, torch.float64), x.new_zeros(classes))

    def _logistic(self, strength: float) -> Probe:
        x = self.x if self._axes is None else self.x @ self._axes.T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 1,000 steps are near enough
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # two labels each
            fitted = LogisticRegression(C=strength, tol=1e-5, max_iter=1000).fit(
                (x / self.scale).numpy(), self.labels
            )
        weight, bias = torch.from_numpy(fitted.coef_) / self.scale, torch.from_numpy(fitted.intercept_)
        if len(weight) == 1:  # of two classes scikit-learn keeps the difference
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        weight = weight if self._axes is None else weight @ self._axes
        return Probe("logistic", self.mean, weight, bias, strength)
