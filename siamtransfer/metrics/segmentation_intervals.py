"""Intervals of the scores of segmentation, and of the difference of two, by resampling images.

The pixels of an image depend on each other, so images are what is drawn (Efron & Tibshirani 1993, the
percentile interval). A resample needs only the areas of every image and class (PerImageCounts): it weights
each image by the number of times it was drawn, and takes the scores of the weighted sums.

Legend: S sets of predictions for the same images, N images, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from siamtransfer.metrics.segmentation import (
    AREAS,
    PerImageCounts,
    intersection_over_union,
    mean_of_present,
)
from siamtransfer.utils.errors import UserError

RESAMPLES = 1000
METRICS = ("miou", "pixel_accuracy", "mean_accuracy")
_AT_ONCE = 2**22
"""Draws that are in memory at once."""


def resampled_scores(
    sets: Sequence[PerImageCounts], resamples: int = RESAMPLES, seed: int = 0, absent: str = "union"
) -> dict[str, np.ndarray]:
    """float64[S, R] for each of METRICS: its values in R resamples of the images, the same for all sets.

    A class that is absent from a resample (see `SegmentationScores.from_counts`) is left out of its means. A
    resample without a pixel that counts is NaN.

    Raises:
        UserError: the sets have no image, or not the same number of images and classes.
    """
    sizes = {(len(images), images.classes) for images in sets}
    if len(sizes) != 1 or not len(sets[0]):
        raise UserError(f"resampling needs the same images and classes in all sets, not {sorted(sizes)}")
    count, classes = sizes.pop()
    matrices = [_areas_by_image(images) for images in sets]
    generator = np.random.default_rng(seed)
    values = {metric: np.empty((len(sets), resamples)) for metric in METRICS}
    step = max(1, _AT_ONCE // count)
    for begin in range(0, resamples, step):
        chunk = slice(begin, min(begin + step, resamples))
        weights = _draws(generator, chunk.stop - begin, count)
        for number, matrix in enumerate(matrices):
            areas = (matrix @ weights).T.reshape(-1, len(AREAS), classes)
            for metric, scores in _scores(areas, absent).items():
                values[metric][number, chunk] = scores
    return values


def interval(
    images: PerImageCounts, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The ends of the 95 % interval of each of METRICS, fractions from 0 to 1."""
    drawn = resampled_scores([images], resamples, seed)
    return {metric: _ends(values[0]) for metric, values in drawn.items()}


def difference_interval(
    first: PerImageCounts, second: PerImageCounts, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The ends of the 95 % interval of second minus first for each of METRICS, over the same resamples."""
    drawn = resampled_scores([first, second], resamples, seed)
    return {metric: _ends(values[1] - values[0]) for metric, values in drawn.items()}


def _areas_by_image(images: PerImageCounts) -> sparse.csr_array:
    """float64[3 C, N]: the areas of every image; those of a kind are C rows."""
    columns = np.repeat(np.arange(len(images)), np.diff(images.ends))
    entries, classes = images.entries, images.classes
    rows = np.concatenate([entries["class"].astype(np.int64) + classes * kind for kind in range(len(AREAS))])
    values = np.concatenate([entries[name] for name in AREAS]).astype(np.float64)
    shape = (len(AREAS) * classes, len(images))
    return sparse.csr_array((values, (rows, np.tile(columns, len(AREAS)))), shape=shape)


def _draws(generator: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """float64[N, r]: how often each image is in each of r resamples of N images."""
    drawn = generator.integers(0, count, (resamples, count))
    drawn += count * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


def _scores(areas: np.ndarray, absent: str) -> dict[str, np.ndarray]:
    """float64[r] for each of METRICS, of areas[r, 3, C]."""
    intersection, prediction, truth = areas[:, 0], areas[:, 1], areas[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracies = np.where(truth > 0, intersection / truth, np.nan)
        pixel_accuracy = intersection.sum(axis=1) / truth.sum(axis=1)
    return {
        "miou": mean_of_present(intersection_over_union(intersection, prediction, truth, absent)),
        "pixel_accuracy": pixel_accuracy,
        "mean_accuracy": mean_of_present(accuracies),
    }


def _ends(values: np.ndarray) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)
