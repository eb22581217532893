"""Accuracies of predicted classes and their intervals, in percent.

Legend: Q queries, C classes.
"""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor


def hits(scores: Tensor, labels: Tensor, top: int = 1) -> Tensor:
    """bool[Q]: whether the label int64[Q] is among the `top` best classes of scores[Q, C].

    Of equal scores the smaller class number comes first. A label whose score is 0 (no vote) is never a hit.
    """
    label_scores = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    better = (scores > label_scores) | ((scores == label_scores) & (classes < labels[:, None]))
    return (better.sum(dim=1) < top) & (label_scores[:, 0] > 0)


def percent_correct(correct: Tensor) -> float:
    """The percentage of correct, bool[Q], that is true."""
    return 100 * float(correct.double().mean())


def mean_per_class(correct: Tensor, labels: Tensor) -> float:
    """The percentage of correct, bool[Q], in each class of labels, int64[Q], averaged over the classes that
    occur."""
    counts = torch.bincount(labels)
    sums = torch.bincount(labels, weights=correct.double())
    return 100 * float((sums[counts > 0] / counts[counts > 0]).mean())


def bootstrap_interval(correct: Tensor) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the percentage of correct, bool[Q], that is true.

    The count of ones in a resample is binomial, so its quantiles are those of infinitely many resamples.
    """
    low, high = stats.binom.ppf([0.025, 0.975], len(correct), float(correct.double().mean()))
    return 100 * float(low) / len(correct), 100 * float(high) / len(correct)
