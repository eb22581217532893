"""Means of repeats with Student's 95 % interval (Student 1908), and the paired t-test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """NAME/mean, NAME/std (of the sample) and NAME/ci95, half the width of the 95 % interval of the mean, of
    two values or more."""
    return {
        f"{name}/mean": float(np.mean(values)),
        f"{name}/std": float(np.std(values, ddof=1)),
        f"{name}/ci95": half_width(values),
    }


def half_width(values: Sequence[float] | np.ndarray) -> float:
    """Half the width of the 95 % interval of the mean of `values`[n], n at least 2."""
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


class PairedTest(NamedTuple):
    """A mean difference, its 95 % interval, and the two-sided p-value of the hypothesis that it is zero."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_t_test(differences: np.ndarray) -> PairedTest:
    """The paired t-test on `differences`[n], n at least 2; the p-value is 1 where all are zero."""
    mean, half = float(differences.mean()), half_width(differences)
    if differences.std() == 0:
        return PairedTest(mean, mean - half, mean + half, 0.0 if differences.any() else 1.0)
    return PairedTest(mean, mean - half, mean + half, float(stats.ttest_1samp(differences, 0).pvalue))
