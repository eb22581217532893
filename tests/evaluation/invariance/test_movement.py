"""Distances relative to those between classes: hand cases, an independent sum over pairs, the resamples."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.evaluation.invariance.follow import Followed
from siamtransfer.evaluation.invariance.movement import (
    class_distance,
    cosine_distances,
    resample,
    resampled_means,
)
from siamtransfer.evaluation.invariance.numbers import Group, all_metrics, groups_of, measure, sample_values
from siamtransfer.evaluation.invariance.strengths import SCALES


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def features() -> np.ndarray:
    """float64[12, 5] of length one."""
    return unit(np.random.default_rng(0).normal(size=(12, 5)) + 1)


LABELS = np.array([0, 0, 0, 2, 2, 2, 2, 7, 7, 7, 7, 7])


def test_distances_are_one_minus_the_cosine_and_exactly_0_for_equal_rows(features: np.ndarray) -> None:
    other = features[::-1]
    np.testing.assert_allclose(
        cosine_distances(features, other), 1 - (features * other).sum(axis=1), atol=1e-15
    )
    assert (cosine_distances(features, features.copy()) == 0).all()
    assert cosine_distances(np.eye(2), np.array([[0.0, 1.0], [0.0, -1.0]])).tolist() == [1.0, 2.0]
    black = np.zeros((2, 2))
    assert cosine_distances(np.eye(2), black).tolist() == [1, 1]
    assert cosine_distances(black, np.eye(2)).tolist() == [1, 1]
    assert cosine_distances(black, black).tolist() == [0, 0]


def test_the_distance_between_classes_is_the_mean_over_pairs(features: np.ndarray) -> None:
    weights = resample(12, 40, 0)
    found = class_distance(features, LABELS, weights)
    cosines = features @ features.T
    apart = LABELS[:, None] != LABELS
    assert found.value == pytest.approx(1 - cosines[apart].mean(), rel=1e-12)
    for row in (0, 17, 39):
        drawn = np.repeat(np.arange(12), weights[row])
        pairs = apart[np.ix_(drawn, drawn)]
        assert found.drawn[row] == pytest.approx(1 - cosines[np.ix_(drawn, drawn)][pairs].mean(), rel=1e-12)
    orthogonal = class_distance(np.eye(3), np.arange(3), np.ones((1, 3), np.int32))
    assert orthogonal.value == pytest.approx(1.0)


def test_a_resample_of_one_class_has_no_distance_between_classes() -> None:
    weights = np.array([[2, 0], [1, 1]], np.int32)
    drawn = class_distance(np.eye(2), np.array([0, 1]), weights).drawn
    assert np.isnan(drawn[0])
    assert drawn[1] == pytest.approx(1.0)


def test_resamples_draw_as_many_images_as_there_are() -> None:
    weights = resample(50, 300, 3)
    assert weights.shape == (300, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert np.array_equal(weights, resample(50, 300, 3))
    assert not np.array_equal(weights, resample(50, 300, 4))
    values = np.random.default_rng(1).normal(size=50)
    means, doubled = resampled_means(weights, np.stack([values, 2 * values], axis=1)).T
    assert means[5] == pytest.approx(np.repeat(values, weights[5]).mean())
    np.testing.assert_allclose(doubled, 2 * means)
    assert means.std() == pytest.approx(values.std() / np.sqrt(50), rel=0.15)


STRENGTHS = {"rotation": (10.0, 90.0), "horizontal_mirror": (1.0,)}


def followed(name: str, features: np.ndarray, distances: tuple[float, float, float]) -> Followed:
    """A network that moves every image by the same distance in each of the three versions."""
    right = {
        ("rotation", 10.0): LABELS == 0,
        ("rotation", 90.0): LABELS == 7,
        ("horizontal_mirror", 1.0): LABELS > 0,
    }
    moved = dict(zip(right, (np.full(12, distance) for distance in distances), strict=True))
    return Followed(name, features, LABELS >= 0, moved, right)


def test_groups_count_every_transformation_alike() -> None:
    groups = {group.name: group.weights for group in groups_of(STRENGTHS)}
    assert list(groups) == [
        *("mean", "rotation/mean", "horizontal_mirror/mean", "rotation/strength=10"),
        *("rotation/strength=90", "horizontal_mirror/strength=1"),
    ]
    assert groups["mean"] == {("rotation", 10): 0.25, ("rotation", 90): 0.25, ("horizontal_mirror", 1): 0.5}
    assert all(sum(weights.values()) == pytest.approx(1) for weights in groups.values())


def test_the_numbers_of_hand(features: np.ndarray) -> None:
    groups = groups_of(STRENGTHS)
    networks = [followed("", features, (0.1, 0.3, 0.0)), followed("pixels", features, (0.2, 0.4, 0.4))]
    measured = measure(networks, LABELS, 200, 0)
    metrics = all_metrics(measured, groups)
    classes = metrics["invariance/class_distance"]
    assert metrics["invariance/rotation/strength=90/cosine"] == pytest.approx(0.7)
    assert metrics["invariance/rotation/mean/relative"] == pytest.approx(0.2 / classes)
    assert metrics["invariance/mean/relative"] == pytest.approx(0.1 / classes)
    assert metrics["invariance/horizontal_mirror/strength=1/relative"] == 0
    assert metrics["invariance/horizontal_mirror/strength=1/relative/ci95_high"] == 0
    assert metrics["baseline/pixels/invariance/mean/relative"] == pytest.approx(0.35 / classes)
    assert metrics["invariance/minus_pixels/mean/relative"] == pytest.approx(-0.25 / classes)
    assert metrics["invariance/clean/top1"] == 100
    assert metrics["invariance/rotation/mean/top1"] == pytest.approx(100 * (3 + 5) / 24)
    assert metrics["invariance/mean/top1"] == pytest.approx(100 * (8 / 24 + 9 / 12) / 2)
    assert metrics["invariance/minus_pixels/mean/top1"] == 0
    assert metrics["invariance/minus_pixels/mean/top1/ci95_high"] == 0  # equal votes: paired, so exactly
    low, high = (metrics[f"invariance/rotation/mean/relative/ci95_{end}"] for end in ("low", "high"))
    assert low < metrics["invariance/rotation/mean/relative"] < high  # the distance between classes varies
    low, high = (metrics[f"invariance/mean/cosine/ci95_{end}"] for end in ("low", "high"))
    assert low == pytest.approx(0.9) and high == pytest.approx(0.9)  # every image moves alike
    assert not any(name.startswith("baseline/pixels/invariance/minus") for name in metrics)
    values = sample_values(measured[0], groups, np.arange(12))
    assert 100 * values.settings["mean/top1"].mean() == pytest.approx(metrics["invariance/mean/top1"])


def test_an_image_that_is_always_right_has_a_share_of_1_and_no_more(features: np.ndarray) -> None:
    strengths = {name: scale.strengths for name, scale in SCALES.items()}
    versions = [(name, strength) for name, values in strengths.items() for strength in values]
    everything = {version: np.ones(12, bool) for version in versions}
    moved = {version: np.zeros(12) for version in versions}
    (one,) = measure([Followed("", features, LABELS >= 0, moved, everything)], LABELS, 100, 0)
    values = sample_values(one, groups_of(strengths), np.arange(12))
    assert all(share.max() <= 1 and share.min() > 1 - 1e-12 for share in values.settings.values())


def test_a_collapsed_network_has_no_relative_distance() -> None:
    same = np.tile(unit(np.ones((1, 4))), (12, 1))
    (one,) = measure([followed("", same, (0.0, 0.0, 0.0))], LABELS, 100, 0)
    numbers = one.metrics(groups_of(STRENGTHS))
    assert one.classes.is_collapsed
    assert np.isnan(numbers["mean/relative"]) and np.isnan(numbers["mean/relative/ci95_low"])
    assert numbers["mean/cosine"] == 1
    assert np.isnan(one.relative(Group("x", {("rotation", 10.0): 1.0}))[0])
