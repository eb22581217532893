"""Errors of calibration against netcal (golden/calibration), torchmetrics and scikit-learn, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from support import paths
from torchmetrics.functional.classification import multiclass_calibration_error

from siamtransfer.metrics.calibration import confidence_metrics, probability_metrics, reliability


def drawn(
    generator: np.random.Generator, samples: int, classes: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    scores = scale * generator.normal(size=(samples, classes))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return p, (scores + generator.normal(size=scores.shape)).argmax(axis=1)


def test_errors_equal_netcals() -> None:
    generator = np.random.default_rng(0)
    for case in json.loads((paths.GOLDEN / "calibration" / "netcal.json").read_text())["cases"]:
        p, y = drawn(generator, case["samples"], case["classes"], case["scale"])
        confidences, correct = p.max(axis=1), p.argmax(axis=1) == y
        for bins in (10, 15):
            wide, equal = (reliability(confidences, correct, bins, adaptive=flag) for flag in (False, True))
            expected = case[f"bins={bins}"]
            assert wide.expected_error == pytest.approx(expected["ece"], abs=1e-12)
            assert wide.largest_error == pytest.approx(expected["mce"], abs=1e-12)
            assert equal.expected_error == pytest.approx(expected["adaptive_ece"], abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_metrics_equal_those_of_torchmetrics_and_scikit_learn(scale: float) -> None:
    p, y = drawn(np.random.default_rng(1), 400, 6, scale)
    numbers = probability_metrics(p, y, resamples=20)
    tensors = torch.from_numpy(p), torch.from_numpy(y)
    for name, norm in (("ece", "l1"), ("mce", "max")):
        theirs = multiclass_calibration_error(*tensors, num_classes=6, n_bins=15, norm=norm)
        assert numbers[name] == pytest.approx(100 * float(theirs), abs=1e-4)
    assert numbers["nll"] == pytest.approx(log_loss(y, p))
    one_against_rest = [brier_score_loss(y == label, p[:, label]) for label in range(6)]
    assert numbers["brier"] == pytest.approx(sum(one_against_rest))
    for name in ("ece", "adaptive_ece", "brier", "nll"):
        assert numbers[f"{name}/ci95_low"] <= numbers[name] <= numbers[f"{name}/ci95_high"]


def test_bins_by_hand() -> None:
    confidences = np.array([0.0, 0.5, 0.51, 1.0, 0.9])
    bins = reliability(confidences, np.array([True, False, True, True, False]), 2)
    assert bins.counts.tolist() == [2, 3], "a confidence at an end is in the lower bin"
    np.testing.assert_allclose(bins.confidence, [0.25, (0.51 + 1 + 0.9) / 3])
    np.testing.assert_allclose(bins.accuracy, [0.5, 2 / 3])
    assert bins.low.tolist() == [0, 0.5] and bins.high.tolist() == [0.5, 1]
    empty = reliability(confidences[3:], np.array([True, False]), 4)
    assert empty.counts.tolist() == [0, 0, 0, 2]
    assert np.isnan(empty.accuracy[:3]).all() and empty.gaps[:3].tolist() == [0, 0, 0]
    equal = reliability(confidences, np.ones(5, bool), 2, adaptive=True)
    assert equal.counts.tolist() == [3, 2]
    np.testing.assert_allclose(equal.confidence, [(0 + 0.5 + 0.51) / 3, 0.95])


def test_errors_do_not_depend_on_the_order_of_samples() -> None:
    p, y = drawn(np.random.default_rng(2), 300, 4, 1.0)
    order = np.random.default_rng(3).permutation(300)
    first, second = (
        probability_metrics(p, y, resamples=5),
        probability_metrics(p[order], y[order], resamples=5),
    )
    for name in ("ece", "adaptive_ece", "mce", "brier", "nll"):
        assert first[name] == pytest.approx(second[name], abs=1e-9)


def test_intervals_hold_the_truth_and_know_calibrated_from_not() -> None:
    """25 draws of 1,000 samples: of a calibrated classifier the interval begins at 0, but for a few; of one
    whose confidences are far too high, never."""
    generator, begins_at_zero, holds = np.random.default_rng(4), 0, 0
    for _ in range(25):
        confidences = generator.beta(5, 2, 1000)
        calibrated = confidence_metrics(confidences, generator.random(1000) < confidences, resamples=100)
        begins_at_zero += calibrated["ece/ci95_low"] == 0
        high = confidence_metrics(confidences, generator.random(1000) < confidences - 0.1, resamples=100)
        holds += high["ece/ci95_low"] <= 10 <= high["ece/ci95_high"]
        assert high["ece/ci95_low"] > 2
    assert begins_at_zero >= 21
    assert holds >= 19


def test_a_class_that_the_classifier_does_not_know_is_wrong_and_costs_all() -> None:
    p = np.array([[0.75, 0.25], [0.5, 0.5]])
    numbers = probability_metrics(p, np.array([0, -1]), resamples=5)
    assert numbers["brier"] == pytest.approx(((0.0625 + 0.0625) + (0.25 + 0.25 + 1)) / 2)
    assert np.isfinite(numbers["nll"]) and numbers["nll"] > 100


@pytest.mark.parametrize(
    ("confidences", "correct", "message"),
    [
        (np.zeros(0), np.zeros(0, bool), "do not fit"),
        (np.zeros(2), np.zeros(3, bool), "do not fit"),
        (np.zeros((2, 2)), np.zeros((2, 2), bool), "do not fit"),
        (np.array([0.5, 1.01]), np.zeros(2, bool), "between 0 and 1"),
        (np.array([0.5, np.nan]), np.zeros(2, bool), "between 0 and 1"),
    ],
)
def test_what_is_no_confidence_is_refused(confidences: np.ndarray, correct: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reliability(confidences, correct)
    with pytest.raises(ValueError, match=message):
        confidence_metrics(confidences, correct)
