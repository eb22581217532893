"""Means, intervals and paired differences of trials against SciPy's own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from siamtransfer.detection.trials import difference_statements, paired_differences, trial_statistics

FIRST = [{"detection/AP": value, "detection/AP50": value + 20} for value in (56.4, 57.1, 56.9, 56.2, 57.0)]
SECOND = [{"detection/AP": value, "detection/AP50": value + 20} for value in (55.9, 56.8, 56.0, 56.1, 56.2)]


def values(trials: list[dict[str, float]]) -> np.ndarray:
    return np.array([trial["detection/AP"] for trial in trials])


def test_mean_std_and_the_interval_are_scipys() -> None:
    results = trial_statistics(FIRST)
    sample = values(FIRST)
    low, high = stats.t.interval(0.95, len(sample) - 1, loc=sample.mean(), scale=stats.sem(sample))
    assert results["detection/AP/mean"] == pytest.approx(56.72)
    assert results["detection/AP/std"] == pytest.approx(stats.tstd(sample))
    assert results["detection/AP/ci95"] == pytest.approx((high - low) / 2)
    assert set(results) == {f"detection/{n}/{key}" for n in ("AP", "AP50") for key in ("mean", "std", "ci95")}


def test_one_trial_stays_as_it_is() -> None:
    assert trial_statistics(FIRST[:1]) == FIRST[0]


def test_the_paired_difference_is_scipys_paired_t_test() -> None:
    results = paired_differences(FIRST, SECOND)
    expected = stats.ttest_rel(values(FIRST), values(SECOND))
    interval = expected.confidence_interval(0.95)
    assert results["compare/detection/AP/difference"] == pytest.approx(0.52)
    assert results["compare/detection/AP/p_value"] == pytest.approx(expected.pvalue)
    assert results["compare/detection/AP/ci95_low"] == pytest.approx(interval.low)
    assert results["compare/detection/AP/ci95_high"] == pytest.approx(interval.high)
    swapped = paired_differences(SECOND, FIRST)
    assert swapped["compare/detection/AP/ci95_low"] == pytest.approx(-interval.high)
    assert swapped["compare/detection/AP/p_value"] == pytest.approx(expected.pvalue)


def test_equal_trials_differ_by_nothing() -> None:
    results = paired_differences(FIRST, FIRST)
    assert (results["compare/detection/AP/difference"], results["compare/detection/AP/p_value"]) == (0, 1)
    shifted = paired_differences([{"detection/AP": 2.0}] * 3, [{"detection/AP": 1.0}] * 3)
    assert (shifted["compare/detection/AP/difference"], shifted["compare/detection/AP/p_value"]) == (1, 0)


def test_one_pair_has_no_interval() -> None:
    results = paired_differences(FIRST[:1], SECOND[:1])
    assert set(results) == {"compare/detection/AP/difference", "compare/detection/AP50/difference"}
    assert "one trial: no interval" in difference_statements(results, ("a", "b"))[0]


def test_a_class_without_a_number_spoils_no_other() -> None:
    results = trial_statistics([{"detection/AP": 1.0, "detection/AP/cat": math.nan}] * 2)
    assert results["detection/AP/mean"] == 1
    assert math.isnan(results["detection/AP/cat/mean"])


@pytest.mark.parametrize(("second", "says"), [(SECOND, False), (FIRST[::-1], True)])
def test_statements_say_when_no_difference_can_be_told(second: list[dict[str, float]], says: bool) -> None:
    sentence = difference_statements(paired_differences(FIRST, second), ("a", "b"))[0]
    assert sentence.startswith("detection/AP: a - b = ")
    assert ("no difference can be told" in sentence) == says
