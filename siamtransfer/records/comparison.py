"""Which of two backbones is better, from the predictions of one evaluator for both on the same samples.

Two measurements can be compared when task, data and protocol are the same (likeness.py has the rule). The
samples are then paired: the interval is that of the difference by the paired bootstrap over samples, and the
test is McNemar's (metrics/paired_bootstrap.py). Of segmentations the samples are images, and there is no test
beside the interval (metrics/segmentation_intervals.py); nor is there for values that samples have.

Legend: Q samples, C classes, R resamples; differences are second minus first, in percentage points.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from siamtransfer.metrics.accuracy import mean_per_class
from siamtransfer.metrics.average_precision import mean_average_precision, steps
from siamtransfer.metrics.paired_bootstrap import (
    accuracy_interval,
    mcnemar,
    mean_average_precision_differences,
    mean_differences,
    mean_per_class_differences,
    percentile_interval,
)
from siamtransfer.metrics.segmentation import PerImageCounts
from siamtransfer.metrics.segmentation_intervals import difference_interval
from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.records.likeness import refuse_unlike
from siamtransfer.records.predictions import Kept, Predictions, SavedRecord, read_record
from siamtransfer.records.result import Result
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import to_json

RESAMPLES, RESAMPLES_OF_SCORES = 10_000, 1000
"""Defaults for the mean over classes, and for mAP and mIoU, which take more time."""
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """A metric of the first and the second, in percent (errors: in their own unit), and the 95 % interval of
    their difference."""

    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """The comparison of two lists of predictions for the same samples.

    Attributes:
        differences: by metric: `top1` and `mean_per_class`; `mAP` for several labels a sample; `miou`,
            `pixel_accuracy` and `mean_accuracy` for segmented images; `mean` for a value a sample.
        only_first_right, only_second_right: number of samples that one of the two predicts correctly.
        p_value: McNemar's. These three are None but for one label a sample.
        error: whether the metric is an error, in its own unit, of which the lower is better.
    """

    differences: dict[str, Difference]
    only_first_right: int | None = None
    only_second_right: int | None = None
    p_value: float | None = None
    error: bool = False

    @property
    def better(self) -> int | None:
        """0 or 1 for the first or the second; None unless both the interval and the test show a
        difference."""
        main = next(iter(self.differences.values()))
        if not main.clear or (self.p_value is not None and self.p_value >= ALPHA):
            return None
        return int((main.value > 0) != self.error)

    def metrics(self, prefix: str) -> dict[str, float]:
        """The numbers under the names of a record, such as PREFIX/top1/difference."""
        metrics: dict[str, float] = {}
        for metric, difference in self.differences.items():
            metrics |= {
                f"{prefix}/{metric}/first": difference.first,
                f"{prefix}/{metric}/second": difference.second,
                f"{prefix}/{metric}/difference": difference.value,
                f"{prefix}/{metric}/ci95_low": difference.low,
                f"{prefix}/{metric}/ci95_high": difference.high,
            }
        if (
            self.p_value is not None
            and self.only_first_right is not None
            and self.only_second_right is not None
        ):
            metrics |= {
                f"{prefix}/only_first_right": float(self.only_first_right),
                f"{prefix}/only_second_right": float(self.only_second_right),
                f"{prefix}/mcnemar_p": self.p_value,
            }
        return metrics

    def __str__(self) -> str:
        return self.verdict(("the first", "the second"))

    def verdict(self, names: tuple[str, str] = ("A", "B")) -> str:
        """The conclusion in words, with `names` for the first and the second."""
        metric, main = next(iter(self.differences.items()))
        better, (low, high) = self.better, (main.low, main.high)
        digits, points, percent = (4, "", "") if self.error else (2, " points", " %")
        if better is not None and main.value < 0:
            low, high = -high, -low
        if better is None:
            difference = f"{main.value:+.{digits}f}{points}"
            conclusion = f"no difference can be told, {names[1]} - {names[0]} is {difference}"
        else:
            conclusion = f"{names[better]} is better by {abs(main.value):.{digits}f}{points}"
        test = "" if self.p_value is None else f", McNemar p = {self.p_value:.2g}"
        values = f"{main.first:.{digits}f} and {main.second:.{digits}f}{percent}"
        return f"{conclusion}, 95 % interval {low:.{digits}f} to {high:.{digits}f}{test} ({metric} {values})"


def compare(
    first: Result | str | Path,
    second: Result | str | Path,
    *,
    setting: str | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Says which of two measurements is better: results of an evaluator, or its records as --record writes
    them.

    Args:
        first: a result, or the path of a record with its predictions beside it.
        second: the same; the difference is the second minus the first.
        setting: the setting of both that is compared, such as `k=20/T=0.07`; not needed where both have one.
        resamples: of the bootstrap; by default 10,000 where each sample has a value, and 1,000 where a score
            of the whole set is computed anew for each.
        seed: of the resamples.

    Raises:
        UserError: the two cannot be compared (`refuse_unlike`), have no such setting, or have several in
            common and none is named.
    """
    a, b = open_measurement(first, "the first result"), open_measurement(second, "the second result")
    refuse_unlike(a, b)
    settings = common_settings(a, b, setting)
    if len(settings) > 1:
        raise UserError(f"both have the settings {', '.join(settings)}: choose one")
    return compare_predictions(a.predictions, b.predictions, settings[0], resamples=resamples, seed=seed)


def open_measurement(source: Result | str | Path, name: str) -> SavedRecord:
    """The record and the predictions of a result or of a file; messages call the result `name`.

    Raises:
        UserError: the file is no record, or there are no predictions.
    """
    if not isinstance(source, Result):
        return read_record(source)
    if source.predictions is None:
        raise UserError(f"{name} has no predictions, so it cannot be compared")
    entries = {key: getattr(source, key) for key in ("task", "metrics", "protocol", "provenance")}
    return SavedRecord(Path(name), json.loads(to_json(entries)), source.predictions)


def common_settings(first: SavedRecord, second: SavedRecord, setting: str | None) -> list[str]:
    """The settings of which both have predictions, or only `setting`.

    Raises:
        UserError: there is none; names those of each.
    """
    settings = [saved.predictions.settings for saved in (first, second)]
    both = [name for name in settings[0] if name in settings[1]]
    if setting is None and both:
        return both
    if setting in both:
        return [setting]
    names = " and ".join(
        f"{saved.path} has {', '.join(saved.predictions.settings)}" for saved in (first, second)
    )
    raise UserError(
        f"there is no setting {setting!r} in both: {names}" if setting else f"no setting is in both: {names}"
    )


def default_resamples(predictions: Kept) -> int:
    """R for labels[Q] or a value a sample; fewer for several labels a sample, labels[Q, C], and for segmented
    images."""
    if isinstance(predictions, Predictions):
        return RESAMPLES if predictions.labels.ndim == 1 else RESAMPLES_OF_SCORES
    return RESAMPLES if isinstance(predictions, SampleValues) else RESAMPLES_OF_SCORES


def compare_predictions(
    first: Kept, second: Kept, setting: str, *, resamples: int | None = None, seed: int = 0
) -> Comparison:
    """Compares one setting of two predictions with the same labels or masks; resamples R are drawn for the
    mean over classes, mAP or mIoU (the interval of top-1 needs none)."""
    resamples = resamples or default_resamples(first)
    if isinstance(first, ImageAreas) and isinstance(second, ImageAreas):
        return compare_areas(
            first.settings[setting], second.settings[setting], resamples=resamples, seed=seed
        )
    if isinstance(first, SampleValues) and isinstance(second, SampleValues):
        return compare_values(
            first.independent(setting),
            second.independent(setting),
            error=setting in first.errors,
            groups=first.groups,
            resamples=resamples,
            seed=seed,
        )
    assert isinstance(first, Predictions) and isinstance(second, Predictions)
    return compare_arrays(
        first.labels, first.settings[setting], second.settings[setting], resamples=resamples, seed=seed
    )


def compare_areas(
    first: PerImageCounts, second: PerImageCounts, *, resamples: int, seed: int = 0
) -> Comparison:
    """Compares two segmentations of the same images: mIoU, pixel accuracy and mean accuracy, with intervals
    of the difference by resampling images. There is no test by samples; the interval decides alone."""
    scores = [counts.scores() for counts in (first, second)]
    return Comparison(
        {
            metric: Difference(
                100 * float(getattr(scores[0], metric)),
                100 * float(getattr(scores[1], metric)),
                100 * low,
                100 * high,
            )
            for metric, (low, high) in difference_interval(first, second, resamples, seed).items()
        }
    )


def compare_values(
    first: np.ndarray,
    second: np.ndarray,
    *,
    error: bool = False,
    groups: np.ndarray | None = None,
    resamples: int,
    seed: int = 0,
) -> Comparison:
    """Compares two float64[N], the values of the same samples from 0 to 1, by their means in percent; those
    of an `error` in its own unit, the lower being better. Where samples have `groups`, int64[N], these are
    resampled. Samples that do not count have NaN in both.

    Raises:
        UserError: there is one group, of which there is no interval.
    """
    counts = ~np.isnan(first)
    first, second, groups = first[counts], second[counts], None if groups is None else groups[counts]
    if groups is not None and len(np.unique(groups)) < 2:
        raise UserError(
            "all samples belong to one group (such as one video), so the difference has no interval; measure "
            "both on more"
        )
    scale = 1 if error else 100
    drawn = scale * mean_differences(first, second, resamples, np.random.default_rng(seed), groups)
    means = [scale * float(values.mean()) for values in (first, second)]
    difference = Difference(means[0], means[1], *percentile_interval(drawn))
    return Comparison({"mean": difference}, error=error)


def compare_arrays(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, *, resamples: int, seed: int = 0
) -> Comparison:
    """Compares two predictions int64[Q] for labels int64[Q], or two scores float64[Q, C] for labels
    int64[Q, C] of 0 and 1."""
    generator = np.random.default_rng(seed)
    if labels.ndim == 2:
        drawn = 100 * mean_average_precision_differences(labels, first, second, resamples, generator)
        values = [mean_average_precision(scores, labels, rule=steps) for scores in (first, second)]
        return Comparison({"mAP": Difference(values[0], values[1], *percentile_interval(drawn))})
    right = [labels == predicted for predicted in (first, second)]
    classes = np.unique(labels, return_inverse=True)[1]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    drawn = 100 * mean_per_class_differences(right[0], right[1], classes, resamples, generator)
    means = [mean_per_class(torch.from_numpy(hit), torch.from_numpy(classes)) for hit in right]
    accuracies = [100 * float(hit.mean()) for hit in right]
    interval = accuracy_interval(only_first, only_second, len(labels))
    return Comparison(
        {
            "top1": Difference(accuracies[0], accuracies[1], *interval),
            "mean_per_class": Difference(means[0], means[1], *percentile_interval(drawn)),
        },
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )
