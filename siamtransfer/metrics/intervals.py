"""Means of repeated measurements with Student's 95 % interval (Student 1908), the paired t-test, and Wilson's
interval of a share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


def mean_and_interval(name: str, values: Sequence[float]) -> dict[str, float]:
    """NAME/mean, NAME/std (with n - 1) and NAME/ci95 (half the width of the 95 % interval of the mean) of
    `values`[n], n at least 2."""
    return {
        f"{name}/mean": float(np.mean(values)),
        f"{name}/std": float(np.std(values, ddof=1)),
        f"{name}/ci95": half_width(values),
    }


def half_width(values: Sequence[float] | np.ndarray) -> float:
    """Half the width of the 95 % interval of the mean of `values`[n], n at least 2."""
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def wilson_interval(count: int, of: int) -> tuple[float, float]:
    """The ends of Wilson's 95 % interval (1927) of a share, from 0 to 1: `count` of so many samples, one or
    more."""
    low, high = stats.binomtest(count, of).proportion_ci(method="wilson")
    return float(low), float(high)


class PairedTest(NamedTuple):
    """The mean difference, the ends of its 95 % interval, and the two-sided p-value of "it is zero"."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_t_test(differences: np.ndarray) -> PairedTest:
    """Student's paired t-test on `differences`, float64[n], n at least 2.

    Differences that are all equal have no variance; the p-value is then 1 if they are zero, otherwise 0.
    """
    mean, half = float(differences.mean()), half_width(differences)
    if differences.std() == 0:
        return PairedTest(mean, mean - half, mean + half, 0.0 if differences.any() else 1.0)
    return PairedTest(mean, mean - half, mean + half, float(stats.ttest_1samp(differences, 0).pvalue))
