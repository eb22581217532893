"""The numbers of test sets, from what a head says of their images.

Legend: Q images, K classes of train, V versions of the same images (corruption and severity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data.shifted_sets import PUBLISHED_CORRUPTIONS
from siamtransfer.evaluation.linear.splits import TestSplit
from siamtransfer.metrics.accuracy import bootstrap_interval
from siamtransfer.metrics.paired_bootstrap import accuracy_interval, mean_differences, percentile_interval
from siamtransfer.records.predictions import Predictions
from siamtransfer.records.sample_values import SampleValues

TASK = "robustness"
RESAMPLES = 2000  # of the images, for intervals of means over versions
SEVERITIES = (1, 2, 3, 4, 5)
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's top-1 error for each corruption of ImageNet-C, a mean over five severities, by which mCE divides
(Hendrycks & Dietterich 2019, section 4.1; the digits are those of the authors' code)."""


@dataclass(frozen=True)
class Scored:
    """What a head says of the images of one set.

    Attributes:
        metrics: by name.
        right: bool[Q].
        predictions: of the setting of the set's name.
    """

    metrics: dict[str, float]
    right: np.ndarray
    predictions: Predictions


def score_set(name: str, scores: Tensor, labels: Tensor, values: Tensor) -> Scored:
    """Top-1, its mean over classes and its interval, as `robustness/NAME/…`, of scores[Q, K] for labels
    int64[Q]; `values` int64[K] are the labels of the columns."""
    numbers = torch.searchsorted(values, labels).clamp(max=len(values) - 1)
    known = torch.where(values[numbers] == labels, numbers, -1)
    split = TestSplit(torch.empty(len(labels), 0), known, values)
    predicted = split.score(name, scores)
    metrics = {
        f"{TASK}/{metric}": value for metric, value in split.metrics.items() if not metric.endswith("/top5")
    }
    return Scored(metrics, predicted == labels.numpy(), split.predictions({name: predicted}))


@dataclass(frozen=True)
class Versions:
    """Which images are right in each version of a set, and on the images as they were.

    Attributes:
        name: of the set.
        right: bool[Q] by corruption and severity.
        clean: bool[Q]; None where those images are not at hand.
    """

    name: str
    right: Mapping[tuple[str, int], np.ndarray]
    clean: np.ndarray | None = None

    @property
    def share(self) -> np.ndarray:
        """float64[Q]: the share of the versions in which an image is right."""
        return np.mean([right.astype(np.float64) for right in self.right.values()], axis=0)

    def metrics(self, seed: int = 0) -> dict[str, float]:
        """Top-1 as a mean over all versions first, then over those of a severity and of a corruption, then of
        each; and how much of the clean images' top-1 each loses, with paired intervals."""
        prefix, share = f"{TASK}/{self.name}", self.share
        nothing, generator = np.zeros(len(share)), np.random.default_rng(seed)
        metrics = {f"{prefix}/mean/top1": 100 * float(share.mean())}
        metrics |= _ends(f"{prefix}/mean", mean_differences(nothing, share, RESAMPLES, generator))
        if self.clean is not None:
            clean = self.clean.astype(np.float64)
            metrics[f"{prefix}/mean/drop"] = 100 * float((clean - share).mean())
            drawn = mean_differences(share, clean, RESAMPLES, generator)
            metrics |= _ends(f"{prefix}/mean/drop", drawn)
        for severity in self.severities:
            metrics[f"{prefix}/mean/severity={severity}/top1"] = self._mean(severity=severity)
        for corruption in self.corruptions:
            metrics[f"{prefix}/{corruption}/mean/top1"] = self._mean(corruption=corruption)
        for (corruption, severity), right in self.right.items():
            metrics |= self._of_version(f"{prefix}/{corruption}/severity={severity}", right)
        return metrics

    @property
    def corruptions(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(corruption for corruption, _ in self.right))

    @property
    def severities(self) -> list[int]:
        """In rising order."""
        return sorted({severity for _, severity in self.right})

    def values(self) -> SampleValues:
        """The share of each image, and whether it is right in each version: what two backbones are compared
        by."""
        each = {
            f"{self.name}/{corruption}/severity={severity}/top1": right.astype(np.float64)
            for (corruption, severity), right in self.right.items()
        }
        share = self.share
        return SampleValues(np.arange(len(share)), {f"{self.name}/mean/top1": share} | each)

    def mean_corruption_error(self) -> float | None:
        """mCE in percent: the mean over the 15 corruptions of the error over that of AlexNet, each a mean
        over the five severities. None where a version is missing."""
        wanted = [(name, severity) for name in PUBLISHED_CORRUPTIONS for severity in SEVERITIES]
        if any(version not in self.right for version in wanted):
            return None
        errors = [(100 - self._mean(corruption=name)) / ALEXNET[name] for name in PUBLISHED_CORRUPTIONS]
        return float(np.mean(errors))

    def _mean(self, corruption: str | None = None, severity: int | None = None) -> float:
        chosen = [
            right.mean()
            for (name, degree), right in self.right.items()
            if corruption in (None, name) and severity in (None, degree)
        ]
        return 100 * float(np.mean(chosen))

    def _of_version(self, prefix: str, right: np.ndarray) -> dict[str, float]:
        low, high = bootstrap_interval(torch.from_numpy(right))
        metrics = {
            f"{prefix}/top1": 100 * float(right.mean()),
            f"{prefix}/ci95_low": low,
            f"{prefix}/ci95_high": high,
        }
        if self.clean is None:
            return metrics
        only_clean, only_version = int((self.clean & ~right).sum()), int((right & ~self.clean).sum())
        low, high = accuracy_interval(only_version, only_clean, len(right))
        return metrics | {
            f"{prefix}/drop": 100 * (only_clean - only_version) / len(right),
            f"{prefix}/drop/ci95_low": low,
            f"{prefix}/drop/ci95_high": high,
        }


def _ends(name: str, drawn: np.ndarray) -> dict[str, float]:
    """The ends of the 95 % interval of drawn[R], in percent."""
    low, high = percentile_interval(100 * drawn)
    return {f"{name}/ci95_low": low, f"{name}/ci95_high": high}
