"""Average precision: how well scores rank the positive samples before the others.

Three definitions are in use. All compute precision and recall after each distinct score, the highest first:
  all points      the area under the curve whose precision at recall r is the highest at any recall from r on
                  (VOC since 2010; VISSL's and mmselfsup's SVM benchmarks)
  eleven points   the mean of that highest precision at recall 0, 0.1, …, 1 (VOC 2007; SimCLR's and BYOL's
                  transfer to VOC07)
  steps           the area under the curve as it is, scikit-learn's average_precision_score; VISSL uses it to
                  choose a cost by cross-validation. It is never above the first.
Samples of equal score count together, so their order does not matter.

Legend: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score

from siamtransfer.utils.errors import UserError

RECALLS = np.arange(11) / 10
Rule = Callable[[np.ndarray, np.ndarray], float]
"""One of the definitions: scores float[N], positive bool[N] with one at least, to a value from 0 to 1."""


def all_points(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the interpolated curve, from 0 to 1, for scores float[N] and positive bool[N], one at least
    true."""
    recall, precision = highest_precision(scores, positive)
    return float(np.diff(recall, prepend=0) @ precision)


def eleven_points(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean interpolated precision at eleven recalls, from 0 to 1, for scores float[N] and positive bool[N],
    one at least true."""
    recall, precision = highest_precision(scores, positive)
    return float(precision[np.searchsorted(recall, RECALLS)].mean())


def steps(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve without interpolation, from 0 to 1, for scores float[N] and positive bool[N]."""
    return float(average_precision_score(positive, scores))


def highest_precision(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interpolated curve after each of S distinct scores, the highest first.

    Returns:
        recall float64[S], which rises to 1, and precision float64[S], the highest at this recall or above.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last sample of each score
    true_positives = np.cumsum(positive[order])[last]
    precision = true_positives / (last + 1)
    return true_positives / true_positives[-1], np.maximum.accumulate(precision[::-1])[::-1]


def average_precisions(
    scores: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None = None, rule: Rule = all_points
) -> np.ndarray:
    """float64[C], the average precision of each class in percent.

    Args:
        scores: float[N, C].
        labels: int or bool[N, C] of 0 and 1.
        ignored: bool[N, C], the samples that do not count for a class.
        rule: the definition.

    Returns:
        NaN for a class without a positive among the samples that count.
    """
    counted = np.ones(labels.shape, bool) if ignored is None else ~ignored
    values = np.full(labels.shape[1], np.nan)
    for c in range(labels.shape[1]):
        positive = labels[counted[:, c], c].astype(bool)
        if positive.any():
            values[c] = 100 * rule(scores[counted[:, c], c], positive)
    return values


def mean_average_precision(
    scores: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None = None, rule: Rule = all_points
) -> float:
    """The mean of `average_precisions`, in percent, over the classes that have a positive.

    Raises:
        UserError: no class has a positive.
    """
    values = average_precisions(scores, labels, ignored, rule)
    if np.isnan(values).all():
        raise UserError("none of the images to be scored shows any class, so there is no average precision")
    return float(np.nanmean(values))
