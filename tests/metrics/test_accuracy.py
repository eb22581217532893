"""Accuracies on cases by hand, and their intervals and means over classes against SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from siamtransfer.metrics.accuracy import bootstrap_interval, hits, mean_per_class, percent_correct


def test_hits_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.2, 0.3], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.0, 1.0, 0.0]])
    labels = torch.tensor([0, 0, 2, 0])
    assert hits(scores, labels).tolist() == [True, False, False, False]
    # Row 1: class 0 is third. Row 2: classes 0 and 2 have equal scores, the smaller number comes first.
    assert hits(scores, labels, top=2).tolist() == [True, False, False, False]
    # Row 3: a class without a vote is no hit, even among the best three of three.
    assert hits(scores, labels, top=3).tolist() == [True, True, True, False]


@pytest.mark.parametrize("top", [1, 2, 5])
def test_hits_agree_with_scikit_learn(top: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(200, 8, generator=generator), torch.arange(200) % 8
    expected = top_k_accuracy_score(labels.numpy(), scores.numpy(), k=top)
    assert percent_correct(hits(scores, labels, top)) == pytest.approx(100 * expected)


def test_percent_correct_by_hand() -> None:
    assert percent_correct(torch.tensor([True, False, False, True])) == 50
    assert percent_correct(torch.tensor([True])) == 100


def test_the_mean_per_class_is_the_balanced_accuracy() -> None:
    # class 0: 1 of 3, class 4: 1 of 1; classes 1 to 3 do not occur
    correct, labels = torch.tensor([True, False, False, True]), torch.tensor([0, 0, 0, 4])
    assert mean_per_class(correct, labels) == pytest.approx(100 * (1 / 3 + 1) / 2)
    generator = np.random.default_rng(0)
    labels_, predicted = generator.integers(0, 4, (2, 300))
    ours = mean_per_class(torch.from_numpy(labels_ == predicted), torch.from_numpy(labels_))
    assert ours == pytest.approx(100 * balanced_accuracy_score(labels_, predicted))


@pytest.mark.parametrize(("ones", "size"), [(7, 20), (150, 200), (1, 50)])
def test_the_interval_is_the_bootstraps(ones: int, size: int) -> None:
    correct = torch.arange(size) < ones
    result = stats.bootstrap(
        (correct.double().numpy(),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    assert bootstrap_interval(correct) == pytest.approx((100 * low, 100 * high), abs=100 / size + 1e-9)


def test_an_interval_without_width() -> None:
    assert bootstrap_interval(torch.ones(10, dtype=torch.bool)) == (100, 100)
    assert bootstrap_interval(torch.zeros(10, dtype=torch.bool)) == (0, 0)
