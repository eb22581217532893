"""How far features of transformed images lie from those of the images, beside the distance between classes.

The distance of two features is 1 - cos of the angle between them, which is half the squared distance of the
features scaled to length one. The unit is the mean distance of two images of different classes: a relative
distance of 0 is an invariant feature, and at 1 an image is as far from itself as from another class.

Legend: n images, V versions of each, D features, R resamples of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLLAPSED = 1e-9
"""A distance between classes below this is rounding: all features point one way, and nothing is relative to
it."""
_CHUNK = 2**24
"""Numbers that are in memory at once."""


def resample(images: int, resamples: int, seed: int) -> np.ndarray:
    """int32[R, n]: how often each image occurs in each resample."""
    generator, even = np.random.default_rng(seed), np.full(images, 1 / images)
    rows = max(1, _CHUNK // images)
    drawn = [
        generator.multinomial(images, even, min(rows, resamples - begin)).astype(np.int32)
        for begin in range(0, resamples, rows)
    ]
    return np.concatenate(drawn)


def resampled_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """float64[R, V]: the mean of each column of values float64[n, V] in each resample weights int32[R, n]."""
    rows = max(1, _CHUNK // len(values))
    means = [
        weights[begin : begin + rows].astype(np.float64) @ values / len(values)
        for begin in range(0, len(weights), rows)
    ]
    return np.concatenate(means)


def cosine_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float64[n]: 1 - cos of the rows of length one, or of zeros, of two float64[n, D]; 0 where they are
    equal. The cosine of a row of zeros, such as the pixels of a black image, with another row is 0."""
    distances: np.ndarray = np.square(first - second).sum(axis=1) / 2
    distances[first.any(axis=1) != second.any(axis=1)] = 1
    return distances


@dataclass(frozen=True)
class ClassDistance:
    """The mean distance of two images of different classes.

    Attributes:
        value: of the images as they are.
        drawn: float64[R], in each resample of the images.
    """

    value: float
    drawn: np.ndarray

    @property
    def is_collapsed(self) -> bool:
        """Whether the distance is rounding."""
        return self.value < COLLAPSED


def class_distance(unit: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> ClassDistance:
    """Of the features unit float64[n, D], rows of length one, of images with labels int64[n].

    The images occur weights int64[R, n] times in each resample. Two occurrences of one image are of one class
    and count as no pair. A resample of one class has NaN.
    """
    once = np.ones((1, len(unit)), weights.dtype)
    value = _between_classes(unit, labels, once)[0]
    rows = max(1, _CHUNK // max(1, unit.shape[1]))
    drawn = [
        _between_classes(unit, labels, weights[begin : begin + rows])
        for begin in range(0, len(weights), rows)
    ]
    return ClassDistance(float(value), np.concatenate(drawn))


def _between_classes(unit: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64[R]: the mean of 1 - cos over pairs of different classes, from the sums of classes alone.

    The sum of cosines over all pairs is the squared length of the sum of all rows, and that over the pairs
    within a class the squared length of the sum of its rows.
    """
    total = np.zeros((len(weights), unit.shape[1]))
    within, pairs_within = np.zeros(len(weights)), np.zeros(len(weights))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counts = weights[:, members].astype(np.float64)
        of_class = counts @ unit[members]
        total += of_class
        within += np.square(of_class).sum(axis=1)
        pairs_within += counts.sum(axis=1) ** 2
    pairs = weights.sum(axis=1).astype(np.float64) ** 2 - pairs_within
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = 1 - (np.square(total).sum(axis=1) - within) / np.where(pairs > 0, pairs, np.nan)
    return mean
