"""The numbers of a record, from what became of the features of the checkpoint and the baselines.

Legend: n images, T transformations, R resamples of the images; a group is one version of the images, all
strengths of a transformation, or all transformations, each counting alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siamtransfer.evaluation.invariance.follow import Followed, Version
from siamtransfer.evaluation.invariance.movement import (
    ClassDistance,
    class_distance,
    resample,
    resampled_means,
)
from siamtransfer.metrics.paired_bootstrap import percentile_interval
from siamtransfer.records.sample_values import SampleValues

TASK, CLEAN, MEAN = "invariance", "clean", "mean"


@dataclass(frozen=True)
class Group:
    """Versions whose mean is one number.

    Attributes:
        name: such as `rotation/strength=30`, `rotation/mean` or `mean`.
        weights: of each version, with the sum 1.
    """

    name: str
    weights: Mapping[Version, float]


def groups_of(strengths: Mapping[str, Sequence[float]]) -> list[Group]:
    """All transformations together, each transformation, and each version."""
    each = {
        name: {(name, strength): 1 / len(values) for strength in values} for name, values in strengths.items()
    }
    together = {version: share / len(each) for shares in each.values() for version, share in shares.items()}
    return [
        Group(MEAN, together),
        *(Group(f"{name}/{MEAN}", shares) for name, shares in each.items()),
        *(Group(f"{name}/strength={strength:g}", {(name, strength): 1.0}) for name, strength in together),
    ]


@dataclass(frozen=True)
class Measured:
    """The numbers of one network, and those of each resample of the images.

    Attributes:
        followed: what became of its features.
        classes: the distance between them.
        weights: int32[R, n], the resamples.
    """

    followed: Followed
    classes: ClassDistance
    weights: np.ndarray

    def metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Cosine, relative distance and top-1 of each group, with the ends of their 95 % intervals; the names
        begin with the group's."""
        metrics = {"class_distance": self.classes.value}
        metrics |= _with_ends(f"{CLEAN}/top1", *self.clean())
        for group in groups:
            distance, drawn = self.distance(group).mean(), _mean(self._drawn_distances, group)
            metrics |= _with_ends(f"{group.name}/cosine", 1 - distance, 1 - drawn)
            metrics |= _with_ends(f"{group.name}/relative", *self.relative(group))
            metrics |= _with_ends(f"{group.name}/top1", *self.top1(group))
        return metrics

    def distance(self, group: Group) -> np.ndarray:
        """float64[n]: the mean distance of each image over the versions of the group."""
        return _mean(self.followed.distances, group)

    def relative(self, group: Group) -> tuple[float, np.ndarray]:
        """The mean distance over that between classes, and the same of each resample, float64[R]; NaN where
        the features have collapsed."""
        if self.classes.is_collapsed:
            return math.nan, np.full(len(self.weights), math.nan)
        return (
            float(self.distance(group).mean() / self.classes.value),
            _mean(self._drawn_distances, group) / self.classes.drawn,
        )

    def right(self, group: Group) -> np.ndarray:
        """float64[n]: the share of the versions in which the neighbours of an image name its class."""
        return _mean(self.followed.right, group).clip(max=1)  # the weights' sum may be above by rounding

    def top1(self, group: Group) -> tuple[float, np.ndarray]:
        """The share of right votes in percent, and that of each resample, float64[R]."""
        return 100 * float(self.right(group).mean()), 100 * _mean(self._drawn_right, group)

    def clean(self) -> tuple[float, np.ndarray]:
        """`top1` of the images as they are."""
        right = self.followed.clean.astype(np.float64)[:, None]
        return 100 * float(right.mean()), 100 * resampled_means(self.weights, right)[:, 0]

    @cached_property
    def _drawn_distances(self) -> dict[Version, np.ndarray]:
        return _drawn(self.weights, self.followed.distances)

    @cached_property
    def _drawn_right(self) -> dict[Version, np.ndarray]:
        return _drawn(self.weights, self.followed.right)


def measure(followed: Sequence[Followed], labels: np.ndarray, resamples: int, seed: int) -> list[Measured]:
    """Every network on the same resamples, for images with labels int64[n]."""
    weights = resample(len(labels), resamples, seed)
    return [Measured(one, class_distance(one.unit, labels, weights), weights) for one in followed]


def all_metrics(measured: Sequence[Measured], groups: Sequence[Group]) -> dict[str, float]:
    """The numbers of the checkpoint, which comes first, what a baseline has less or more of each mean, and
    the numbers of the baselines.

    Differences are the checkpoint's number minus the baseline's, with paired intervals: the images and the
    resamples are the same.
    """
    ours, *baselines = measured
    metrics = {f"{TASK}/{name}": value for name, value in ours.metrics(groups).items()}
    for theirs in baselines:
        name = theirs.followed.name
        for group in groups:
            if group.name == MEAN or group.name.endswith(f"/{MEAN}"):
                prefix = f"{TASK}/minus_{name}/{group.name}"
                metrics |= _difference(f"{prefix}/relative", ours.relative(group), theirs.relative(group))
                metrics |= _difference(f"{prefix}/top1", ours.top1(group), theirs.top1(group))
    for theirs in baselines:
        name = theirs.followed.name
        metrics |= {
            f"baseline/{name}/{TASK}/{metric}": value for metric, value in theirs.metrics(groups).items()
        }
    return metrics


def sample_values(ours: Measured, groups: Sequence[Group], places: np.ndarray) -> SampleValues:
    """Which images are right in each version and on average, by which two backbones are compared; `places`
    int64[n] are the images' numbers in their set."""
    settings = {f"{CLEAN}/top1": ours.followed.clean.astype(np.float64)}
    return SampleValues(places, settings | {f"{group.name}/top1": ours.right(group) for group in groups})


def _drawn(weights: np.ndarray, values: Mapping[Version, np.ndarray]) -> dict[Version, np.ndarray]:
    """float64[R] of each version: the mean of its values [n] in each resample."""
    columns = np.stack([each.astype(np.float64) for each in values.values()], axis=1)
    return dict(zip(values, resampled_means(weights, columns).T, strict=True))


def _mean(values: Mapping[Version, np.ndarray], group: Group) -> np.ndarray:
    """float64[n] or [R]: the weighted mean over the versions of a group."""
    total = np.zeros(len(next(iter(values.values()))))
    for version, weight in group.weights.items():
        total += weight * values[version]
    return total.clip(0)


def _difference(
    name: str, first: tuple[float, np.ndarray], second: tuple[float, np.ndarray]
) -> dict[str, float]:
    return _with_ends(name, first[0] - second[0], first[1] - second[1])


def _with_ends(name: str, value: float, drawn: np.ndarray) -> dict[str, float]:
    """A number and the ends of the 95 % interval of drawn[R]; NaN where there is none."""
    low, high = percentile_interval(drawn) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return {name: float(value), f"{name}/ci95_low": low, f"{name}/ci95_high": high}
