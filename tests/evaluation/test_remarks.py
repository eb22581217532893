"""Features and labels that make a number say less than it seems to are remarked, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from siamtransfer.evaluation.api import diagnose, knn, linear_probe
from siamtransfer.evaluation.remarks import remarks_on
from siamtransfer.features.extract import Features

CLASSES = 5
TRAIN_LABELS, TEST_LABELS = np.arange(200) % CLASSES, np.arange(100) % CLASSES


def features(scale: float = 1, constant: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 16))
    sides = [scale * (centres[y] + 1.5 * rng.normal(size=(len(y), 16))) for y in (TRAIN_LABELS, TEST_LABELS)]
    if constant is not None:
        sides = [np.column_stack([x, np.full(len(x), constant)]) for x in sides]
    return sides[0].astype(np.float32), sides[1].astype(np.float32)


def splits(train: np.ndarray, test: np.ndarray, shift: int = 0) -> tuple[Features, Features]:
    return (
        Features(torch.from_numpy(train), torch.from_numpy(TRAIN_LABELS)),
        Features(torch.from_numpy(test), torch.from_numpy(TEST_LABELS + shift)),
    )


@pytest.mark.parametrize(
    "use", ["cosine", "euclidean", "logistic", "standardised", "gradient descent", "svm", "measures"]
)
def test_ordinary_features_have_no_remark(use):
    assert remarks_on(*splits(*features()), use) == []


@pytest.mark.parametrize(
    ("use", "scale", "constant", "shift", "words"),
    [
        ("cosine", 1, 7e4, 0, "such as feature 16 with 7e+04"),
        ("svm", 1, -7e4, 0, "drown the others"),
        ("logistic", 1e-10, None, 0, "add --standardise"),
        ("gradient descent", 1e10, None, 0, "the usual learning rates do not suit"),
        ("svm", 1e-6, None, 0, "beside which the 1e-5"),
        ("cosine", 1, None, 3, "3 classes are in test and not in train (5, 6, 7)"),
        ("standardised", 1, None, 9, "share no label"),
    ],
)
def test_doubtful_features_and_labels_are_remarked(use, scale, constant, shift, words):
    (remark,) = remarks_on(*splits(*features(scale, constant), shift), use)
    assert words in remark
    assert "\n" not in remark


def test_rows_of_zeros_are_counted():
    train, test = features()
    train[::4] = 0
    test[:] = 0
    remarks = remarks_on(*splits(train, test), "cosine")
    assert [remark.split(" images ")[0] for remark in remarks] == [
        "the features of 25 % of the",
        "the features of 100 % of the",
    ]


def test_remarks_stand_in_the_record_of_every_evaluator():
    train, test = features(constant=7e4)
    pairs = (train, TRAIN_LABELS), (test, TEST_LABELS + 1)
    assert len(knn(*pairs, k=5).protocol["remarks"]) == 2
    assert len(linear_probe(*pairs, strengths=[1.0]).protocol["remarks"]) == 1
    assert "remarks" not in knn(pairs[0], k=5, metric="euclidean").protocol
    checkpoints = diagnose(pairs[0], restarts=0).protocol["checkpoints"]
    assert len(checkpoints[0]["remarks"]) == 1


@pytest.mark.parametrize("scale", [1e17, 1e30, 3e37, 1e-10, 1e-25])
def test_a_standardised_probe_is_the_same_at_any_scale(scale):
    def accuracy(scale: float) -> float:
        train, test = features(scale, constant=scale)
        strengths = [1e-3, 1.0]
        result = linear_probe(
            (train, TRAIN_LABELS), (test, TEST_LABELS), strengths=strengths, standardise=True
        )
        return result.metrics["linear/top1"]

    assert accuracy(scale) == pytest.approx(accuracy(1), abs=1)


@pytest.mark.parametrize("scale", [1e17, 3e37])
def test_a_probe_of_huge_features_is_remarked_and_does_not_overflow(scale):
    train, test = features(scale)
    result = linear_probe((train, TRAIN_LABELS), (test, TEST_LABELS), strengths=[1e-3, 1.0])
    assert result.metrics["linear/top1"] > 60
    assert "add --standardise" in result.protocol["remarks"][0]


@pytest.mark.parametrize("scale", [1e17, 1e30, 1e-10, 1e-25])
def test_diagnostics_without_a_unit_are_the_same_at_any_scale(scale):
    first, second = (diagnose((features(s)[0], TRAIN_LABELS), restarts=2).metrics for s in (1.0, scale))
    assert second == pytest.approx(first, rel=1e-4, nan_ok=True)
