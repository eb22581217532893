"""Student's intervals and the paired t-test by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from siamtransfer.metrics.intervals import half_width, mean_and_interval, paired_t_test

VALUES = st.lists(st.integers(-1000, 1000), min_size=2, max_size=12)


def test_three_values_by_hand() -> None:
    # mean 2, sample deviation 1, standard error 1 / sqrt(3); Student's t for 95 % and two degrees is 4.3027
    expected = {"top1/mean": 2, "top1/std": 1, "top1/ci95": 4.302652729911275 / 3**0.5}
    assert mean_and_interval("top1", [1, 2, 3]) == pytest.approx(expected)


def test_two_values_by_hand() -> None:
    # sample deviation sqrt(2), standard error 1; t for one degree of freedom is 12.706
    assert half_width([1, 3]) == pytest.approx(12.706204736432095)


@given(VALUES)
def test_the_half_width_is_scipys_interval(values: list[int]) -> None:
    if len(set(values)) == 1:
        assert half_width(values) == 0
        return
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert 2 * half_width(values) == pytest.approx(interval.high - interval.low)


def test_the_paired_test_by_hand() -> None:
    # differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 with two degrees, p = 0.0742
    test = paired_t_test(np.array([1.0, 2.0, 3.0]))
    half = 4.302652729911275 / 3**0.5
    assert test == pytest.approx((2, 2 - half, 2 + half, 0.07417990022744853))


@given(VALUES)
def test_the_paired_test_is_scipys(values: list[int]) -> None:
    differences = np.array(values, float)
    if differences.std() == 0:
        expected = 0.0 if differences.any() else 1.0
        assert paired_t_test(differences) == (differences[0], differences[0], differences[0], expected)
        return
    theirs = stats.ttest_rel(differences, np.zeros(len(differences)))
    interval = theirs.confidence_interval(0.95)
    expected_test = (differences.mean(), interval.low, interval.high, theirs.pvalue)
    assert paired_t_test(differences) == pytest.approx(expected_test, abs=1e-9)
