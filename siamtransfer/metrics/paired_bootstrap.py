"""Intervals and the test of the difference between two predictions of the same samples.

The interval is the percentile interval of the paired bootstrap over samples (Efron & Tibshirani 1993). The
test is McNemar's (1947) in its exact form.

Legend: Q samples, C classes, R resamples; differences are second minus first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats
from scipy.fft import irfft, next_fast_len, rfft

_TAILS = (0.025, 0.975)
_CHUNK = 2**22
"""Numbers of a chunk of resamples that are in memory at once."""


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test, two-sided. If the two are equally good, the samples that only one
    of them predicts correctly are fair coin tosses between the two."""
    discordant = only_first + only_second
    return float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0


def accuracy_interval(only_first: int, only_second: int, samples: int) -> tuple[float, float]:
    """The paired bootstrap's 95 % interval of the difference of two accuracies, in percentage points, in the
    limit of infinitely many resamples.

    A sample adds -1, 0 or +1 to the difference, so the difference of a resample is the sum of Q draws from
    these three values. Its distribution is given by the coefficients of the polynomial (p₋ + p₀ z + p₊ z²)^Q,
    which a Fourier transform of length 2 Q + 1 or more computes exactly but for rounding.
    """
    length = next_fast_len(2 * samples + 1, real=True)
    kinds = np.array([only_first, samples - only_first - only_second, only_second]) / samples
    probabilities = irfft(rfft(kinds, length) ** samples, length)
    low, high = np.searchsorted(probabilities.clip(min=0).cumsum(), _TAILS) - samples
    return 100 * float(low) / samples, 100 * float(high) / samples


def mean_differences(
    first: np.ndarray,
    second: np.ndarray,
    resamples: int,
    generator: np.random.Generator,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """float64[R]: the difference of the means of two float64[Q] in each of R resamples of the samples; with
    `groups`, int64[Q], of the groups, each with all its samples."""
    gain = second - first
    if groups is not None:
        return _mean_of_groups(gain, groups, resamples, generator)
    means = np.empty(resamples)
    for chunk in _chunks(resamples, len(gain)):
        drawn = generator.integers(0, len(gain), (chunk.stop - chunk.start, len(gain)))
        means[chunk] = gain[drawn].mean(axis=1)
    return means


def _mean_of_groups(
    values: np.ndarray, groups: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """float64[R]: the mean of values[Q] in each of R resamples of the groups."""
    _, number = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(number, values), np.bincount(number)
    means = np.empty(resamples)
    for chunk in _chunks(resamples, len(sums)):
        drawn = generator.integers(0, len(sums), (chunk.stop - chunk.start, len(sums)))
        means[chunk] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def mean_per_class_differences(
    first: np.ndarray, second: np.ndarray, classes: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """float64[R]: the difference of two means over classes of accuracy in each of R resamples.

    `first` and `second`, bool[Q], say which samples are predicted correctly; `classes`, int64[Q], are numbers
    from 0. In a resample the counts of each class and each of the three cases are multinomial, so these 3 C
    numbers are drawn instead of Q samples. A class that is absent from a resample is left out of its mean.
    """
    samples, number = len(classes), int(classes.max()) + 1
    gain = second.astype(np.int64) - first
    probabilities = np.bincount(3 * classes + gain + 1, minlength=3 * number) / samples
    means = np.empty(resamples)
    for chunk in _chunks(resamples, 3 * number):
        drawn = generator.multinomial(samples, probabilities, chunk.stop - chunk.start).reshape(-1, number, 3)
        present = drawn.sum(axis=2)
        differences = (drawn[:, :, 2] - drawn[:, :, 0]) / present.clip(min=1)
        means[chunk] = differences.sum(axis=1) / (present > 0).sum(axis=1)
    return means


def mean_average_precision_differences(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """float64[R]: the difference of two mean average precisions in each of R resamples of the images, for
    labels int64[Q, C] and scores float64[Q, C]; see `resampled_mean_average_precisions`."""
    drawn = resampled_mean_average_precisions(labels, [first, second], resamples, generator)
    difference: np.ndarray = drawn[1] - drawn[0]
    return difference


def resampled_mean_average_precisions(
    labels: np.ndarray, sets: Sequence[np.ndarray], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """float64[S, R]: the mean average precision, from 0 to 1, of S sets of scores float64[Q, C] in each of R
    resamples of the images, the same for all sets, for labels int64[Q, C]. A class without a positive in a
    resample is left out of its mean; a resample without any positive is NaN."""
    samples = len(labels)
    probabilities = np.full(samples, 1 / samples)
    means = np.empty((len(sets), resamples))
    for chunk in _chunks(resamples, samples):
        drawn = generator.multinomial(samples, probabilities, chunk.stop - chunk.start)
        counts = drawn.T.astype(np.float64, "C")
        total, present = np.zeros((len(sets), counts.shape[1])), np.zeros(counts.shape[1])
        for c in np.flatnonzero(labels.any(axis=0)):
            present += labels[:, c] @ counts > 0
            for number, scores in enumerate(sets):
                total[number] += resampled_average_precisions(labels[:, c], scores[:, c], counts)
        with np.errstate(invalid="ignore"):
            means[:, chunk] = total / present
    return means


def resampled_average_precisions(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[R]: the average precision Σ (recallₙ - recallₙ₋₁) precisionₙ of each resample.

    scores[Q] and labels[Q] of 0 and 1, with one 1 or more; image i occurs counts[i, r] times in resample r.
    Equal scores are one threshold; a resample without a positive has 0.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positives = scores[order], np.flatnonzero(labels[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
    last = last[np.unique(np.searchsorted(last, positives))]  # thresholds without a positive add nothing
    weights = counts[order[: last[-1] + 1]]
    retrieved = np.add.reduceat(weights, np.append(0, last[:-1] + 1), axis=0).cumsum(axis=0)
    hits = weights[positives].cumsum(axis=0)[np.searchsorted(positives, last, side="right") - 1]
    steps = np.diff(hits, axis=0, prepend=0)
    return (steps * hits / retrieved.clip(min=1)).sum(axis=0) / hits[-1].clip(min=1)


def percentile_interval(drawn: np.ndarray) -> tuple[float, float]:
    """The ends of the 95 % interval of drawn[R], without NaN."""
    low, high = np.nanquantile(drawn, _TAILS)
    return float(low), float(high)


def _chunks(resamples: int, numbers: int) -> Iterator[slice]:
    """Slices of the resamples, of which each needs at most _CHUNK numbers at `numbers` a resample."""
    step = max(1, _CHUNK // numbers)
    for begin in range(0, resamples, step):
        yield slice(begin, min(begin + step, resamples))
