"""The paired bootstrap against brute force and enumeration, and McNemar's test by hand."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score
from support.paired_samples import pair

from siamtransfer.metrics import paired_bootstrap
from siamtransfer.metrics.paired_bootstrap import (
    accuracy_interval,
    mcnemar,
    mean_average_precision_differences,
    mean_per_class_differences,
    resampled_average_precisions,
)

# The interval of a difference of accuracies.


def brute_force(first: np.ndarray, second: np.ndarray, statistic: Any, resamples: int) -> np.ndarray:
    """The textbook's bootstrap: samples drawn one by one."""
    generator = np.random.default_rng(0)
    draws = (generator.integers(0, len(first), len(first)) for _ in range(resamples))
    return np.array([statistic(second, rows) - statistic(first, rows) for rows in draws])


@pytest.mark.parametrize("counts", [(10, 25, 120, 45), (3, 0, 40, 7), (60, 61, 0, 5)])
def test_the_interval_is_that_of_resampling(counts: tuple[int, int, int, int]) -> None:
    first, second = pair(counts)
    drawn = brute_force(first, second, lambda right, rows: right[rows].mean(), 20_000)
    ends = 100 * np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    one_sample = 100 / len(first)
    assert accuracy_interval(counts[0], counts[1], len(first)) == pytest.approx(ends, abs=one_sample + 1e-9)


@pytest.mark.parametrize("counts", [(2, 3, 4), (0, 4, 5), (1, 0, 11), (5, 5, 0)])
def test_the_interval_is_that_of_all_resamples(counts: tuple[int, int, int]) -> None:
    """Every multinomial outcome, with scipy's probabilities."""
    samples = sum(counts)
    shares = np.array(counts) / samples
    outcomes = [(a, b) for a, b in product(range(samples + 1), repeat=2) if a + b <= samples]
    chance = np.array([stats.multinomial.pmf([a, b, samples - a - b], samples, shares) for a, b in outcomes])
    gain = np.array([b - a for a, b in outcomes])
    expected = [
        min(d for d in range(-samples, samples + 1) if chance[gain <= d].sum() >= tail)
        for tail in (0.025, 0.975)
    ]
    found = accuracy_interval(counts[0], counts[1], samples)
    assert found == pytest.approx([100 * d / samples for d in expected])


def test_one_sided_differences_are_binomial() -> None:
    """If only the second is ever right alone, the difference is the binomial's, also for many samples."""
    for samples, only_second in ((100, 7), (50_000, 1234)):
        expected = stats.binom.ppf([0.025, 0.975], samples, only_second / samples)
        found = accuracy_interval(0, only_second, samples)
        assert found == pytest.approx(100 * expected / samples)


def test_two_that_are_alike_or_opposite_have_no_width() -> None:
    assert accuracy_interval(0, 0, 50) == (0, 0)
    assert accuracy_interval(0, 50, 50) == (100, 100)
    assert accuracy_interval(50, 0, 50) == (-100, -100)
    swapped = accuracy_interval(9, 4, 30)
    assert accuracy_interval(4, 9, 30) == pytest.approx((-swapped[1], -swapped[0]))


def test_the_interval_covers_the_truth_in_95_of_100_experiments() -> None:
    """600 simulated pairs of 200 samples with a true difference of 8 points; three deviations are 2.7 %."""
    generator, chances = np.random.default_rng(0), [0.07, 0.15, 0.78]
    covered = 0
    for only_first, only_second, _ in generator.multinomial(200, chances, 600):
        low, high = accuracy_interval(only_first, only_second, 200)
        covered += low <= 8 <= high
    assert 0.923 <= covered / 600 <= 0.977


def test_the_interval_of_the_mean_over_classes_covers_the_truth() -> None:
    """400 simulated pairs over three unlike classes, in which the second gains 20, 5 and -5 points."""
    generator, gains = np.random.default_rng(1), np.array([0.2, 0.05, -0.05])
    covered = 0
    for _ in range(400):
        classes = generator.choice(3, 200, p=[0.2, 0.3, 0.5])
        luck, other = generator.random((2, 200))
        shared = generator.random(200) < 0.5
        second = np.where(shared, luck, other) < 0.6 + gains[classes]
        drawn = mean_per_class_differences(luck < 0.6, second, classes, 400, generator)
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += low <= gains.mean() <= high
    assert 0.915 <= covered / 400 <= 0.985


# McNemar's test.


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1),
        (1, 1, 1),
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
        (3, 7, 2 * (1 + 10 + 45 + 120) / 2**10),
        (40, 40, 1),
    ],
)
def test_mcnemars_exact_test_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)
    tail = sum(math.comb(30, n) for n in range(9)) / 2**30
    assert mcnemar(22, 8) == pytest.approx(2 * tail)


# The mean over classes, and mAP.


def test_the_mean_over_classes_is_resampled_like_its_samples() -> None:
    generator = np.random.default_rng(3)
    classes = generator.choice(5, 120, p=[0.4, 0.3, 0.2, 0.08, 0.02])  # the last may be missing in a resample
    classes[:5] = np.arange(5)
    first, second = generator.random(120) < 0.5, generator.random(120) < 0.6

    def mean(right: np.ndarray, rows: np.ndarray) -> float:
        return float(np.mean([right[rows][classes[rows] == c].mean() for c in np.unique(classes[rows])]))

    theirs = brute_force(first, second, mean, 4000)
    ours = mean_per_class_differences(first, second, classes, 4000, generator)
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
    assert np.quantile(ours, [0.025, 0.975]) == pytest.approx(np.quantile(theirs, [0.025, 0.975]), abs=0.015)


def test_average_precision_of_a_resample_is_scikit_learns() -> None:
    """With ties, and images that a resample lacks or has several times."""
    generator = np.random.default_rng(4)
    scores, labels = generator.integers(0, 12, 60) / 4, generator.random(60) < 0.3
    counts = generator.multinomial(60, np.full(60, 1 / 60), 25).T
    ours = resampled_average_precisions(labels.astype(np.int64), scores, counts.astype(float))
    for r in range(25):
        rows = np.repeat(np.arange(60), counts[:, r])
        assert ours[r] == pytest.approx(average_precision_score(labels[rows], scores[rows]))
    nobody = np.ones((60, 1)) * ~labels[:, None]
    assert resampled_average_precisions(labels.astype(np.int64), scores, nobody).tolist() == [0]


def test_mean_average_precision_is_resampled_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers one by one; a class without a positive in a resample is left out, as in the metric."""
    generator = np.random.default_rng(5)
    labels = (generator.random((30, 4)) < [0.5, 0.3, 0.05, 0]).astype(np.int64)
    labels[0, 2] = 1
    first, second = labels + generator.normal(size=(2, 30, 4))
    ours = mean_average_precision_differences(labels, first, second, 40, np.random.default_rng(6))
    draws = np.random.default_rng(6).multinomial(30, np.full(30, 1 / 30), 40)
    missing = 0
    for difference, drawn in zip(ours, draws, strict=True):
        rows = np.repeat(np.arange(30), drawn)
        present = np.flatnonzero(labels[rows].any(axis=0))
        missing += 2 not in present
        means = [
            np.mean([average_precision_score(labels[rows, c], scores[rows, c]) for c in present])
            for scores in (first, second)
        ]
        assert difference == pytest.approx(means[1] - means[0])
    assert 0 < missing < 40
    monkeypatch.setattr(paired_bootstrap, "_CHUNK", 100)
    chunks = mean_average_precision_differences(labels, first, second, 40, np.random.default_rng(6))
    assert chunks == pytest.approx(ours), "however many resamples are held at once"
