"""Average precision: how well scores rank the positive samples before the others, as PASCAL VOC defines it.

Three definitions are in use. All of them read precision and recall after each distinct score from the top:
  all points      the area under the curve whose precision at recall r is the highest at any recall from r on
                  (VOC since 2010; VISSL's and mmselfsup's SVM benchmarks)
  eleven points   the mean of that highest precision at recall 0, 0.1, …, 1 (VOC 2007; SimCLR's and BYOL's
                  transfer to VOC07)
  steps           the area under the curve as it is, scikit-learn's average_precision_score; VISSL uses it to
                  choose a cost by cross-validation. It is never above the first.
Samples of equal score count together, so no order among them matters.

Legend: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score

from siamtransfer.utils.errors import UserError

RECALLS = np.arange(11) / 10
Rule = Callable[[np.ndarray, np.ndarray], float]


def all_points(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the interpolated curve, from 0 to 1; scores float[N], positive bool[N] with one at least."""
    recall, precision = highest_precision(scores, positive)
    return float(np.diff(recall, prepend=0) @ precision)


def eleven_points(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean interpolated precision at eleven recalls, from 0 to 1; scores float[N], positive bool[N] with one
    at least."""
    recall, precision = highest_precision(scores, positive)
    return float(precision[np.searchsorted(recall, RECALLS)].mean())


def steps(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve without interpolation, from 0 to 1."""
    return float(average_precision_score(positive, scores))


def highest_precision(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) after each distinct score from the top: recall rises to 1, and precision is the
    highest from there on."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # of the samples of each score
    found = np.cumsum(positive[order])[last]
    precision = found / (last + 1)
    return found / found[-1], np.maximum.accumulate(precision[::-1])[::-1]


def average_precisions(
    scores: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None = None, rule: Rule = all_points
) -> np.ndarray:
    """float64[C] in percent for scores float[N,C] and labels[N,C] of 0 and 1, each class over the samples
    that are not ignored, bool[N,C]; NaN for a class that none of those shows."""
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
    """The mean in percent over the classes that some sample shows; arguments as of `average_precisions`.

    Raises:
        UserError: no sample shows any class.
    """
    values = average_precisions(scores, labels, ignored, rule)
    if np.isnan(values).all():
        raise UserError("none of the images to be scored shows any class, so there is no average precision")
    return float(np.nanmean(values))
