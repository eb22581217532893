"""Which of two backbones is better, from what one evaluator said of both on the same samples.

Two records are alike when task, data and protocol are the same (`refuse_unlike` has the rule). Then every
sample is its own control: the interval is that of the difference, by the paired bootstrap over samples (Efron
& Tibshirani 1993, percentile interval), and the test is McNemar's (1947) in its exact form.

Legend: Q samples, C classes, R resamples; differences are second minus first, in percentage points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.fft import irfft, next_fast_len, rfft

from siamtransfer.metrics.accuracy import mean_per_class
from siamtransfer.metrics.average_precision import mean_average_precision, steps
from siamtransfer.records.predictions import Published
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

BELONGS_TO_WEIGHTS = ("transform.mean", "transform.std")
CHOSEN = ("chosen_", "held_out_")
SPELT_IN_SETTING = {"knn": ("k", "temperature", "uniform")}
TAILS = (0.025, 0.975)
ALPHA = 0.05
_TOGETHER = 2**22  # numbers of a chunk of resamples that are held at once


@dataclass(frozen=True)
class Difference:
    """One number of both, in percent, and the 95 % interval of their difference."""

    first: float
    second: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two lists of predictions against each other: the difference of every number (`top1` first, and
    `mean_per_class`; or `mAP`), and for single labels McNemar's test with its two counts."""

    differences: dict[str, Difference]
    only_first_right: int | None = None
    only_second_right: int | None = None
    p_value: float | None = None

    @property
    def better(self) -> int | None:
        """0 or 1 for the one that is better; None where no difference can be told, which takes both the
        interval and the test."""
        main = next(iter(self.differences.values()))
        if not main.clear or (self.p_value is not None and self.p_value >= ALPHA):
            return None
        return int(main.value > 0)

    def verdict(self, names: tuple[str, str] = ("A", "B")) -> str:
        """The conclusion in words."""
        number, main = next(iter(self.differences.items()))
        better, (low, high) = self.better, (main.low, main.high)
        if better == 0:
            low, high = -high, -low
        if better is None:
            conclusion = f"no difference can be told, {names[1]} - {names[0]} is {main.value:+.2f} points"
        else:
            conclusion = f"{names[better]} is better by {abs(main.value):.2f} points"
        test = "" if self.p_value is None else f", McNemar p = {self.p_value:.2g}"
        return (
            f"{conclusion}, 95 % interval {low:.2f} to {high:.2f}{test} "
            f"({number} {main.first:.2f} and {main.second:.2f} %)"
        )


def refuse_unlike(first: Published, second: Published) -> None:
    """Raises UserError, which names the key and both values, unless the two measured the same in the same
    way:

    - `task`, and every key of `protocol` except what belongs to the weights (BELONGS_TO_WEIGHTS), what came
      out of a choice on held-out data (names that begin as in CHOSEN; `chosen_on`, where it was made, has to
      be the same), and lists of values that a setting's name spells out (SPELT_IN_SETTING);
    - every `…_fingerprint` of provenance, which stands for the images;
    - the labels of all samples, in their order.

    Feature files have no fingerprint, and their paths, `train` and `test`, are the weights' own: of those
    only the numbers of samples and the labels tell that the images were the same.
    """
    one, other = _what_must_agree(first.record), _what_must_agree(second.record)
    cannot = f"{first.path} and {second.path} cannot be compared, for"
    for key in one | other:
        if key not in one or key not in other or one[key] != other[key]:
            values = [repr(entries[key]) if key in entries else "absent" for entries in (one, other)]
            raise UserError(f"{cannot} {key} is {values[0]} in the first and {values[1]} in the second")
    labels = [published.predictions.labels for published in (first, second)]
    if labels[0].shape != labels[1].shape:
        raise UserError(f"{cannot} they scored {list(labels[0].shape)} and {list(labels[1].shape)} labels")
    differing = np.argwhere(labels[0] != labels[1])
    if len(differing):
        at = tuple(differing[0])
        raise UserError(
            f"{cannot} {len(differing)} labels differ: that of sample {at[0]} is {labels[0][at]} in the "
            f"first and {labels[1][at]} in the second"
        )


def common_settings(first: Published, second: Published, asked: str | None) -> list[str]:
    """The settings that both have predictions of, or the one asked for.

    Raises:
        UserError: there is none; says which there are.
    """
    found = [published.predictions.settings for published in (first, second)]
    both = [name for name in found[0] if name in found[1]]
    if asked is None and both:
        return both
    if asked in both:
        return [asked]
    has = " and ".join(
        f"{published.path} has {', '.join(settings)}"
        for published, settings in zip((first, second), found, strict=True)
    )
    raise UserError(
        f"there is no setting {asked!r} in both: {has}" if asked else f"no setting is in both: {has}"
    )


def compare(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, *, resamples: int, seed: int = 0
) -> Comparison:
    """Two lists of predictions as `Predictions` holds them; `resamples` R are drawn for the mean over classes
    or mAP (the interval of top-1 needs none)."""
    generator = np.random.default_rng(seed)
    if labels.ndim == 2:
        drawn = 100 * mean_average_precision_differences(labels, first, second, resamples, generator)
        points = [mean_average_precision(scores, labels, rule=steps) for scores in (first, second)]
        return Comparison({"mAP": Difference(points[0], points[1], *_tails(drawn))})
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
            "mean_per_class": Difference(means[0], means[1], *_tails(drawn)),
        },
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided: samples that just one got right fall to either side like a fair coin
    if the two are equally good."""
    discordant = only_first + only_second
    return float(stats.binomtest(only_second, discordant).pvalue) if discordant else 1.0


def accuracy_interval(only_first: int, only_second: int, samples: int) -> tuple[float, float]:
    """The paired bootstrap's 95 % interval of the difference of two accuracies, in percentage points, as
    endlessly many resamples give it.

    A sample adds -1, 0 or +1 to the difference, so the numbers of each in a resample are multinomial, and the
    sum is the sum of `samples` draws from three values. Its distribution has the coefficients of the
    polynomial (p₋ + p₀ z + p₊ z²)^Q, which a Fourier transform of at least 2 Q + 1 places gives without error
    but rounding.
    """
    length = next_fast_len(2 * samples + 1, real=True)
    kinds = np.array([only_first, samples - only_first - only_second, only_second]) / samples
    probabilities = irfft(rfft(kinds, length) ** samples, length)
    low, high = np.searchsorted(probabilities.clip(min=0).cumsum(), TAILS) - samples
    return 100 * float(low) / samples, 100 * float(high) / samples


def mean_per_class_differences(
    first: np.ndarray, second: np.ndarray, classes: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """float64[R]: the difference of two means over classes of accuracy in each of R resamples of all samples;
    `first` and `second` bool[Q] say what is right, `classes` int64[Q] counts from 0.

    In a resample the numbers of samples of each class and of each of the three cases are multinomial, so
    these 3 C numbers are drawn instead of Q samples. A class that a resample lacks is left out of its mean.
    """
    samples, number = len(classes), int(classes.max()) + 1
    gain = second.astype(np.int64) - first
    shares = np.bincount(3 * classes + gain + 1, minlength=3 * number) / samples
    found = np.empty(resamples)
    for part in _chunks(resamples, 3 * number):
        drawn = generator.multinomial(samples, shares, part.stop - part.start).reshape(-1, number, 3)
        present = drawn.sum(axis=2)
        differences = (drawn[:, :, 2] - drawn[:, :, 0]) / present.clip(min=1)
        found[part] = differences.sum(axis=1) / (present > 0).sum(axis=1)
    return found


def mean_average_precision_differences(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """float64[R]: the difference of two mean average precisions in each of R resamples of the images, of
    labels int64[Q, C] and scores float64[Q, C]. A class without a positive in a resample is left out of its
    mean; a resample without any positive is NaN."""
    samples = len(labels)
    chances = np.full(samples, 1 / samples)
    found = np.empty(resamples)
    for part in _chunks(resamples, samples):
        counts = generator.multinomial(samples, chances, part.stop - part.start).T.astype(np.float64, "C")
        total, present = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
        for c in np.flatnonzero(labels.any(axis=0)):
            present += labels[:, c] @ counts > 0
            total += average_precisions(labels[:, c], second[:, c], counts)
            total -= average_precisions(labels[:, c], first[:, c], counts)
        with np.errstate(invalid="ignore"):
            found[part] = total / present
    return found


def average_precisions(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64[R]: the average precision Σ (recallₙ - recallₙ₋₁) precisionₙ of scores[Q] for labels[Q] of 0
    and 1, some of them 1, where image i occurs counts[i, r] times. Equal scores are one threshold; a resample
    without a positive gets 0.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positives = scores[order], np.flatnonzero(labels[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
    last = last[np.unique(np.searchsorted(last, positives))]  # thresholds without a positive add nothing
    weights = counts[order[: last[-1] + 1]]
    retrieved = np.add.reduceat(weights, np.append(0, last[:-1] + 1), axis=0).cumsum(axis=0)
    hits = weights[positives].cumsum(axis=0)[np.searchsorted(positives, last, side="right") - 1]
    steps = np.diff(hits, axis=0, prepend=0)
    return (steps * hits / retrieved.clip(min=1)).sum(axis=0) / hits[-1].clip(min=1)


def _what_must_agree(record: dict[str, Any]) -> dict[str, Any]:
    """The entries of a record that `refuse_unlike` compares, under the names that it tells."""
    task, provenance = record["task"], record["provenance"]
    paths = ("train", "test") if "train_digest" in provenance else ()
    free = (*BELONGS_TO_WEIGHTS, *SPELT_IN_SETTING.get(task, ()), *paths)
    protocol = {
        f"protocol.{key}": value
        for key, value in flatten(record["protocol"]).items()
        if key not in free and (key == "chosen_on" or not key.startswith(CHOSEN))
    }
    data = {f"provenance.{key}": value for key, value in provenance.items() if key.endswith("_fingerprint")}
    return {"task": task} | data | protocol


def _tails(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, TAILS)
    return float(low), float(high)


def _chunks(resamples: int, numbers: int) -> Iterator[slice]:
    """Parts of the resamples of which each, at `numbers` a resample, is held at once."""
    step = max(1, _TOGETHER // numbers)
    for begin in range(0, resamples, step):
        yield slice(begin, min(begin + step, resamples))
