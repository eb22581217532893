"""Accuracies of predicted classes and how certain they are, in percent.

Legend: Q queries, C classes.
"""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor


def hits(scores: Tensor, labels: Tensor, top: int = 1) -> Tensor:
    """bool[Q]: whether the label int64[Q] is among the `top` best classes of `scores`[Q, C].

    A class without any vote never counts as a hit, and of equal scores the smaller class number wins.
    """
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    better = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return (better.sum(dim=1) < top) & (own[:, 0] > 0)


def mean_per_class(right: Tensor, labels: Tensor) -> float:
    """The mean over the classes that occur of the percentage of their queries that are right[Q]."""
    counts = torch.bincount(labels)
    sums = torch.bincount(labels, weights=right.double())
    return 100 * float((sums[counts > 0] / counts[counts > 0]).mean())


def bootstrap_interval(right: Tensor) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of the percentage of right[Q].

    Resampling ones and zeros gives a binomial count, so its quantiles are those of endlessly many resamples.
    """
    low, high = stats.binom.ppf([0.025, 0.975], len(right), float(right.double().mean()))
    return 100 * float(low) / len(right), 100 * float(high) / len(right)


def percent(right: Tensor) -> float:
    """The share of right[Q] that is true, in percent."""
    return 100 * float(right.double().mean())
