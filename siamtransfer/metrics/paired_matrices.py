"""Paired tests of all pairs of many predictions of the same samples at once.

A test answers with a p-value and a standardised difference z for each pair, float64[S, S]: of row and column,
positive where the row's value is the greater. Resamples and random signs are shared by all pairs.

A p-value counted in R random draws cannot be below 1 / (R + 1) (Phipson and Smyth 2010, "Permutation p-values
should never be zero"), which corrections for thousands of tests are. Where no draw is as extreme as what was
observed, the tail of the normal (or Student's) distribution with the draws' spread takes over.

Legend: S sets of predictions, Q samples, N images, R draws, K repeats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

FLIPS = 10_000
_AT_ONCE = 2**22  # numbers of random signs that are in memory
_BISECTIONS = 40  # of the logarithm of a p-value
_TIE = 1e-9  # relative difference of sums that are equal but for rounding


class PairMatrix(NamedTuple):
    """Of each pair the two-sided p-value and the standardised difference, float64[S, S]; the diagonals are 1
    and 0."""

    p_values: np.ndarray
    z: np.ndarray


def mcnemar_matrix(hits: np.ndarray) -> PairMatrix:
    """McNemar's exact test (1947) of all pairs of hits, bool[S, Q]: whether each sample was predicted
    correctly. `paired_bootstrap.mcnemar` is that of one pair."""
    right = hits.astype(np.float64)
    only_row = np.rint(right @ (1 - right).T)
    discordant = only_row + only_row.T
    fewer = np.minimum(only_row, only_row.T)
    p_values = np.minimum(1.0, 2 * stats.binom.cdf(fewer, discordant, 0.5))
    return PairMatrix(p_values, (only_row - only_row.T) / np.sqrt(discordant.clip(min=1)))


def sign_flip_matrix(values: np.ndarray, generator: np.random.Generator, flips: int = FLIPS) -> PairMatrix:
    """The paired randomisation test (Fisher 1935) of all pairs of values, float64[S, Q], for their sums: if
    the two of a pair are equally good, each sample's difference might as well have the other sign."""
    sums, count = values.sum(axis=1), values.shape[1]
    observed = sums[:, None] - sums
    as_extreme = np.zeros_like(observed)
    limits = np.abs(observed) * (1 - _TIE)
    step = max(1, _AT_ONCE // max(count, len(values) ** 2))
    for begin in range(0, flips, step):
        plus = _random_bits(generator, min(step, flips - begin), count)
        drawn = 2 * (plus @ values.T) - sums
        as_extreme += (np.abs(drawn[:, :, None] - drawn[:, None, :]) >= limits).sum(axis=0)
    squares, differing = _squares_of_differences(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(squares > 0, observed / np.sqrt(squares), 0.0)
    counted = (as_extreme + 1) / (flips + 1)
    fewest = np.ldexp(1.0, 1 - differing)  # all signs equal: what no flip can be below
    tail = np.maximum(2 * stats.norm.sf(np.abs(z)), fewest)
    return PairMatrix(np.where(as_extreme > 0, counted, np.minimum(tail, counted)), z)


def _random_bits(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """float64[rows, columns] of 0 and 1."""
    width = (columns + 7) // 8
    packed = np.frombuffer(generator.bytes(rows * width), np.uint8).reshape(rows, width)
    return np.unpackbits(packed, axis=1, count=columns).astype(np.float64)


def _squares_of_differences(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64[S, S]: the sum of the squared differences of each pair of values[S, Q]; int64[S, S]: the number
    of samples in which the two differ."""
    squares, differing = (np.zeros((len(values),) * 2, dtype) for dtype in (np.float64, np.int64))
    for row, own in enumerate(values):
        gain = own - values
        squares[row], differing[row] = (gain**2).sum(axis=1), (gain != 0).sum(axis=1)
    return squares, differing


def bootstrap_matrix(observed: np.ndarray, drawn: np.ndarray, count: int) -> PairMatrix:
    """The test of all pairs of scores by the bootstrap over `count` images: observed float64[S], and drawn
    float64[S, R] in resamples that all sets share (NaN: a resample without a score).

    The p-value is twice the share of the resamples in which the pair has changed sides, each tail with one
    more (Efron and Tibshirani 1993, chapter 15), but never below Student's tail with the bootstrap's standard
    error, which alone decides where no resample has changed sides.
    """
    rows = len(observed)
    p_values, z = np.ones((rows, rows)), np.zeros((rows, rows))
    kept = drawn[:, ~np.isnan(drawn).any(axis=0)]
    resamples = kept.shape[1]
    if resamples < 2 or count < 2:
        return PairMatrix(p_values, z)
    correction = np.sqrt(count / (count - 1))
    for first in range(rows):
        for second in range(first + 1, rows):
            gain = kept[first] - kept[second]
            error = correction * gain.std(ddof=1)
            difference = observed[first] - observed[second]
            if error <= _TIE * max(abs(observed[first]), abs(observed[second])):
                continue  # one and the same predictions
            statistic = difference / error
            p_value = 2 * stats.t.sf(abs(statistic), count - 1)
            crossed = min((gain <= 0).sum(), (gain >= 0).sum())
            if crossed:
                p_value = max(p_value, min(1.0, 2 * (crossed + 1) / (resamples + 1)))
            p_values[first, second] = p_values[second, first] = p_value
            z[first, second], z[second, first] = statistic, -statistic
    return PairMatrix(p_values, z)


def two_way_matrix(values: np.ndarray) -> PairMatrix:
    """The test of all pairs of values float64[S, K, Q], of K repeats (draws of training images, the same for
    all sets) on Q samples, for their means, when both might have been others.

    The variance of a difference is the sum of that of its K means over samples and that of its Q means over
    repeats, as of two crossed factors; their interaction is in both, so the test errs on the safe side. The
    p-value is that of Cochran and Cox (1950, "Experimental designs"). Of one repeat only the samples count.
    """
    repeats, samples = values.shape[1:]
    means = values.mean(axis=(1, 2))
    factors = [(values.mean(axis=1), samples), (values.mean(axis=2), repeats)]
    factors = [(each, count) for each, count in factors if count > 1]
    variances = np.stack([_variances_of_differences(each) / count for each, count in factors])
    freedom = np.array([count - 1 for _, count in factors])
    total = variances.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(total > 0, (means[:, None] - means) / np.sqrt(total), 0.0)
        shares = np.where(total > 0, variances / total, 1 / len(factors))
    return PairMatrix(_cochran_cox(z, shares, freedom), z)


def _cochran_cox(statistic: np.ndarray, shares: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """The two-sided p-values of differences in units of a standard error whose variance has parts: the level
    at which the mean of Student's critical values of the parts' degrees of freedom F, int64[F], weighted by
    their `shares` of the variance, [F, ...], is the statistic [...]. It is found by bisection."""
    low, high = np.full(statistic.shape, np.log(1e-300)), np.zeros(statistic.shape)
    degrees = freedom.reshape(-1, *[1] * statistic.ndim)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        critical = (shares * stats.t.isf(np.exp(middle) / 2, degrees)).sum(axis=0)
        too_likely = critical < np.abs(statistic)
        low, high = np.where(too_likely, low, middle), np.where(too_likely, middle, high)
    p_values: np.ndarray = np.exp(high)
    return p_values


def _variances_of_differences(values: np.ndarray) -> np.ndarray:
    """float64[S, S]: the variance (with n - 1) of the difference of each pair of values[S, n]."""
    covariance = np.atleast_2d(np.cov(values))
    own = np.diag(covariance)
    found: np.ndarray = (own[:, None] + own - 2 * covariance).clip(min=0)
    found[found < _TIE * (own[:, None] + own)] = 0
    return found
