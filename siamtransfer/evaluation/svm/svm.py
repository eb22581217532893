"""One linear SVM a class on frozen features, as VISSL scores VOC07: on all of trainval, and on a few images.

Goyal et al., arXiv 1905.01235, as released in VISSL, whose settings mmselfsup shares. The features are
divided by their norm; a class's SVM is LIBLINEAR's, with squared hinge loss, an L2 penalty on weights and
bias, and twice the weight on positive images. Images that show a class only in difficult objects are negative
ones in the full benchmark's training, as they are there; the low-shot benchmark draws none of them, and no AP
on test counts them.

Legend: N images, D features, C classes, K costs, S repeated draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from siamtransfer.evaluation.svm.config import COSTS, SHOTS
from siamtransfer.metrics.average_precision import all_points, average_precisions
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

ROWS = 8192  # that are normalised at once
MAX_ITERATIONS = 2000
"""Of LIBLINEAR; an SVM that reaches them counts as unconverged."""


@dataclass(eq=False)
class SvmSplit:
    """Train or test: features float64[N, D] of norm one, labels bool[N, C], ignored bool[N, C]."""

    features: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None) -> SvmSplit:
        """From features of any norm, labels[N, C] of 0 and 1, and what is ignored (None: nothing)."""
        ignored = np.zeros(labels.shape, bool) if ignored is None else ignored
        return cls(normalise(features), labels.astype(bool) & ~ignored, ignored)

    def counted(self, c: int) -> np.ndarray:
        """int64[n]: the images whose label for class c counts."""
        return np.flatnonzero(~self.ignored[:, c])


@dataclass(eq=False)
class FullScores:
    """Of SVMs fitted to all of train: per class the AP on test in percent (NaN where no test image shows it)
    and the chosen cost, float64[C], and the mean AP of cross-validation in percent, float64[C, K] (NaN where
    there was but one cost). `scores` is float64[N, C] of the test images. `unconverged` counts the SVMs that
    reached MAX_ITERATIONS."""

    precision: np.ndarray
    cost: np.ndarray
    validated: np.ndarray
    scores: np.ndarray
    unconverged: int


@dataclass(eq=False)
class LowShotScores:
    """mAP in percent of each draw at each cost, float64[S, K], by the number of shots: on test, and on the
    images of train that the draws left. `unconverged` counts the SVMs that reached MAX_ITERATIONS."""

    test: dict[int, np.ndarray]
    rest: dict[int, np.ndarray]
    unconverged: int

    def summary(self, costs: Sequence[float]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """The mean, least, largest and (population) standard deviation over draws at the cost with the best
        mean on the rest of train, and at the one with the best mean on test, by name; and those costs."""
        metrics: dict[str, float] = {}
        chosen: dict[str, dict[str, float]] = {}
        for k, on_test in self.test.items():
            for rule, chooser in (("", self.rest[k]), ("/best_on_test_cost", on_test)):
                best = int(chooser.mean(axis=0).argmax())
                values, name = on_test[:, best], f"k={k}{rule}"
                chosen.setdefault(rule.lstrip("/") or "rest_of_train", {})[f"k={k}"] = costs[best]
                metrics |= {
                    f"svm/low_shot/{name}/mean": float(values.mean()),
                    f"svm/low_shot/{name}/min": float(values.min()),
                    f"svm/low_shot/{name}/max": float(values.max()),
                    f"svm/low_shot/{name}/std": float(values.std()),
                }
        return metrics, chosen


def score_full(
    train: SvmSplit,
    test: SvmSplit,
    names: Sequence[str],
    costs: Sequence[float] = COSTS,
    *,
    folds: int = 3,
    seed: int = 0,
    jobs: int = 1,
) -> FullScores:
    """Chooses each class's cost by cross-validation on train, by scikit-learn's average precision, fits it
    again to all of train and scores test once. `jobs` processes take a class each; `names` are the classes'.

    Raises:
        UserError: a class has too few images in train, or no test image shows any class.
    """
    for c, name in enumerate(names):
        shown = int(train.labels[:, c].sum())
        if min(shown, len(train.labels) - shown) < folds:
            raise UserError(
                f"{shown} of the {len(train.labels)} train images show {name}: {folds}-fold cross-validation "
                f"needs {folds} that do and {folds} that do not"
            )
    _require_shown(test)
    work = [(train, test, c, costs, folds, seed) for c in range(len(names))]
    chosen, validated, columns, unconverged = [], [], [], 0
    for name, (cost, by_cost, column, failures) in zip(names, _run_parallel(_full, work, jobs), strict=True):
        precision = f", AP {by_cost.max():.2f} % on held-out folds" if len(costs) > 1 else ""
        say(f"{name}: cost {cost:g}{precision}")
        chosen.append(cost)
        validated.append(by_cost)
        columns.append(column)
        unconverged += failures
    scores = np.stack(columns, axis=1)
    precisions = average_precisions(scores, test.labels, test.ignored)
    return FullScores(precisions, np.array(chosen), np.stack(validated), scores, unconverged)


def score_low_shot(
    train: SvmSplit,
    test: SvmSplit,
    names: Sequence[str],
    costs: Sequence[float] = COSTS,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    seed: int = 0,
    jobs: int = 1,
) -> LowShotScores:
    """For each number of shots k and each of `draws` repeats: every class's SVM is fitted to k images that
    show it and (C - 1) k that do not, drawn for this class and this k alone.

    Raises:
        UserError: a class has too few images, or no test image shows any class.
    """
    most = max(shots)
    for c, name in enumerate(names):
        shown, absent = (len(rows) for rows in _shown_and_absent(train, c))
        if shown < most or absent < (len(names) - 1) * most or len(names) < 2:
            raise UserError(
                f"{shown} train images show {name} and {absent} do not: {most} shots need {most} and "
                f"{(len(names) - 1) * most}; lower --low-shot"
            )
    _require_shown(test)
    result = LowShotScores({}, {}, 0)
    for k in shots:
        work = [(train, test, c, k, draw, costs, seed) for draw in range(draws) for c in range(len(names))]
        on_test, on_rest, failures = zip(*_run_parallel(_low_shot, work, jobs), strict=True)
        shape = draws, len(names), len(costs)
        result.test[k] = np.nanmean(np.reshape(on_test, shape), axis=1)
        rest = np.reshape(on_rest, shape)
        if np.isnan(rest).all():
            raise UserError(
                f"{k} shots leave no train image that shows a class, to choose a cost by; lower --low-shot"
            )
        result.rest[k] = np.nanmean(rest, axis=1)
        result.unconverged += sum(failures)
        say(f"{k} shots: mAP {result.test[k].mean(axis=0).max():.2f} % at the best cost on test")
    return result


def draw(train: SvmSplit, c: int, shots: int, number: int, seed: int = 0) -> np.ndarray:
    """int64[C * shots], rising: the images of draw `number` for class c, `shots` that show it and the rest
    that do not."""
    generator = np.random.default_rng([seed, number, shots, c])
    shown, absent = _shown_and_absent(train, c)
    negatives = (train.labels.shape[1] - 1) * shots
    positive_rows = generator.choice(shown, shots, replace=False)
    negative_rows = generator.choice(absent, negatives, replace=False)
    return np.sort(np.concatenate([positive_rows, negative_rows]))


def normalise(features: np.ndarray) -> np.ndarray:
    """float64[N, D]: every row divided by its norm plus 1e-5."""
    normalised = features.astype(np.float64)
    for begin in range(0, len(normalised), ROWS):  # norms of all rows at once would take another copy
        rows = normalised[begin : begin + ROWS]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5
    return normalised


def fit(
    features: np.ndarray, positive: np.ndarray, costs: Sequence[float], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights float64[D, K] and biases float64[K] of an SVM at each cost, and how many reached
    MAX_ITERATIONS, for features[N, D] and positive bool[N]. By the seed LIBLINEAR orders the images that it
    takes."""
    weights, biases, unconverged = np.empty((features.shape[1], len(costs))), np.empty(len(costs)), 0
    for k, cost in enumerate(costs):
        svm = LinearSVC(
            C=cost, class_weight={1: 2, -1: 1}, dual=True, max_iter=MAX_ITERATIONS, random_state=seed % 2**32
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
            svm.fit(features, np.where(positive, 1, -1))
        weights[:, k], biases[k] = svm.coef_[0], svm.intercept_[0]
        unconverged += int(svm.n_iter_ >= MAX_ITERATIONS)
    return weights, biases, unconverged


def cross_validate(
    features: np.ndarray, positive: np.ndarray, costs: Sequence[float], folds: int = 3, seed: int = 0
) -> tuple[np.ndarray, int]:
    """The mean over folds of each cost's average precision in percent, float64[K], and how many SVMs met
    MAX_ITERATIONS. Folds are runs of the images in their order, with an equal fraction of positives."""
    values, unconverged = [], 0
    for fitted, held_out in StratifiedKFold(folds).split(features, positive):
        weights, biases, failures = fit(features[fitted], positive[fitted], costs, seed)
        scores = features[held_out] @ weights + biases
        values.append([average_precision_score(positive[held_out], column) for column in scores.T])
        unconverged += failures
    return 100 * np.mean(values, axis=0), unconverged


def _full(
    train: SvmSplit, test: SvmSplit, c: int, costs: Sequence[float], folds: int, seed: int
) -> tuple[float, np.ndarray, np.ndarray, int]:
    """(cost, AP of each cost in cross-validation, scores of test, SVMs that reached MAX_ITERATIONS) of class
    c."""
    positive, best = train.labels[:, c], 0
    validated, unconverged = np.full(len(costs), np.nan), 0
    if len(costs) > 1:
        validated, unconverged = cross_validate(train.features, positive, costs, folds, seed)
        best = int(validated.argmax())
    weights, biases, failures = fit(train.features, positive, [costs[best]], seed)
    return costs[best], validated, test.features @ weights[:, 0] + biases[0], unconverged + failures


def _low_shot(
    train: SvmSplit, test: SvmSplit, c: int, shots: int, number: int, costs: Sequence[float], seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """(AP on test, AP on the rest of train, both in percent and float64[K], SVMs that reached
    MAX_ITERATIONS)."""
    rows = draw(train, c, shots, number, seed)
    weights, biases, unconverged = fit(train.features[rows], train.labels[rows, c], costs, seed)

    def precision(split: SvmSplit, rows: np.ndarray) -> np.ndarray:
        positive = split.labels[rows, c]
        if not positive.any():
            return np.full(len(costs), np.nan)
        scores = split.features[rows] @ weights + biases
        return np.array([100 * all_points(column, positive) for column in scores.T])

    rest = np.setdiff1d(train.counted(c), rows)
    return precision(test, test.counted(c)), precision(train, rest), unconverged


def _shown_and_absent(train: SvmSplit, c: int) -> tuple[np.ndarray, np.ndarray]:
    counted = train.counted(c)
    shown = train.labels[counted, c]
    return counted[shown], counted[~shown]


def _require_shown(test: SvmSplit) -> None:
    if not (test.labels & ~test.ignored).any():
        raise UserError("none of the images to be scored shows any class, so there is no average precision")


def _run_parallel(function: Callable[..., Any], work: list[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """The results in the order of `work`, each as soon as it is there, from processes of one thread each that
    share the features."""
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=jobs, return_as="generator")(
            delayed(function)(*arguments) for arguments in work
        )
