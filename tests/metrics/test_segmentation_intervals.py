"""Intervals of segmentation scores by resampling images."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.metrics.segmentation import PerImageCounts, SegmentationScores, count_image
from siamtransfer.metrics.segmentation_intervals import (
    difference_interval,
    interval,
    resampled_scores,
)
from siamtransfer.utils.errors import UserError

CLASSES, IMAGES = 5, 40


def segmentations(
    right: float, images: int = IMAGES, seed: int = 0
) -> tuple[PerImageCounts, list[np.ndarray]]:
    """Counts of images in which the fraction `right` of pixels is right, and the matrix of each."""
    generator = np.random.default_rng(seed)
    counts, matrices = PerImageCounts(CLASSES), []
    for _ in range(images):
        mask = generator.integers(0, CLASSES - 1, (8, 8), dtype=np.uint8)
        other = generator.integers(0, CLASSES, mask.shape)
        mask[generator.random(mask.shape) < 0.1] = 255
        prediction = np.where(generator.random(mask.shape) < right, mask % 255, other)
        matrices.append(count_image(prediction, mask, CLASSES))
        counts.add(matrices[-1])
    return counts, matrices


def test_every_resample_is_scored_as_its_images_together():
    first, of_first = segmentations(0.5)
    second, of_second = segmentations(0.6)
    drawn = resampled_scores([first, second], resamples=6, seed=3)
    chosen = np.random.default_rng(3).integers(0, IMAGES, (6, IMAGES))
    for number, matrices in enumerate((of_first, of_second)):
        for resample in range(6):
            scores = SegmentationScores.from_counts(sum(matrices[image] for image in chosen[resample]))
            for metric, values in drawn.items():
                assert values[number, resample] == pytest.approx(getattr(scores, metric), abs=1e-12)


def test_chunks_do_not_change_the_number(monkeypatch: pytest.MonkeyPatch):
    images, _ = segmentations(0.5)
    whole = resampled_scores([images], resamples=50)
    monkeypatch.setattr("siamtransfer.metrics.segmentation_intervals._AT_ONCE", 7 * IMAGES)
    for metric, values in resampled_scores([images], resamples=50).items():
        assert np.array_equal(values, whole[metric])


def test_an_interval_holds_the_score_and_narrows_with_images():
    few, many = (segmentations(0.5, images)[0] for images in (20, 320))
    widths = []
    for images in (few, many):
        low, high = interval(images, 300)["miou"]
        assert low < images.scores().miou < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


def test_pairs_tell_differences_that_single_intervals_do_not():
    generator = np.random.default_rng(0)
    worse, better = PerImageCounts(2), PerImageCounts(2)
    for _ in range(IMAGES):
        right = int(generator.integers(20, 80))  # images differ much, the two backbones little and always
        for counts, more in ((worse, 0), (better, 2)):
            counts.add(np.array([[right + more, 100 - right - more], [0, 100]]))
    low, high = difference_interval(worse, better)["miou"]
    assert 0 < low < better.scores().miou - worse.scores().miou < high
    assert interval(better)["miou"][0] < worse.scores().miou


def test_the_seed_decides():
    images, _ = segmentations(0.5)
    assert interval(images, 100, seed=1) == interval(images, 100, seed=1) != interval(images, 100, seed=2)


def test_images_without_a_pixel_that_counts():
    images = PerImageCounts(2)
    images.add(np.zeros((2, 2), np.int64))
    assert np.isnan(interval(images, 100)["miou"]).all()
    images.add(np.array([[3, 1], [0, 2]]))
    assert interval(images, 200)["miou"] == pytest.approx([0.75 / 2 + 2 / 6] * 2)


def test_other_images_are_refused():
    first, second = segmentations(0.5)[0], segmentations(0.5, 3)[0]
    with pytest.raises(UserError, match="the same images and classes"):
        difference_interval(first, second)
