"""Whether confidences are the shares of right predictions that they claim to be.

Predictions are put into bins by their confidence. In a bin, a calibrated classifier is right as often as its
mean confidence says; the gap between the two is its error there. The expected calibration error is the mean
gap over all samples, the maximum calibration error the largest gap (Naeini et al. 2015; Guo et al. 2017,
section 2, with 15 bins of equal width). Bins of equal numbers of samples make the adaptive error (Nguyen &
O'Connor 2015), which does not depend on empty bins.

Legend: Q samples, K classes, B bins, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamtransfer.metrics.intervals import half_width

BINS = 15
"""Of Guo et al. 2017."""
RESAMPLES = 1000
_CHUNK = 2**22  # numbers of a chunk of resamples that are in memory at once
_LEAST = np.finfo(np.float64).tiny  # a probability of zero for the label has a finite log


@dataclass(frozen=True)
class Reliability:
    """The bins of a reliability diagram, from low confidence to high.

    Attributes:
        low, high: float64[B], the ends of each bin; a confidence at an end is in the lower bin.
        counts: int64[B].
        confidence, accuracy: float64[B], the mean confidence and the share of right predictions, from 0 to
            1; NaN in empty bins.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """float64[B]: accuracy minus confidence; 0 in empty bins."""
        return np.where(self.counts > 0, self.accuracy - self.confidence, 0.0)

    @property
    def expected_error(self) -> float:
        """The mean of the absolute gap over the samples, from 0 to 1."""
        return float((self.counts * np.abs(self.gaps)).sum() / self.counts.sum())

    @property
    def largest_error(self) -> float:
        """The largest absolute gap, from 0 to 1."""
        return float(np.abs(self.gaps).max())


def reliability(
    confidences: np.ndarray, correct: np.ndarray, bins: int = BINS, *, adaptive: bool = False
) -> Reliability:
    """The bins of confidences[Q] in [0, 1] of predictions of which correct, bool[Q], says whether they are
    right.

    Args:
        bins: B.
        adaptive: make the bins of equal numbers of samples (but for one) instead of equal width; samples of
            equal confidence may then be in two bins.

    Raises:
        ValueError: there is no sample, the shapes differ, or a confidence is not in [0, 1].
    """
    confidences, correct = _checked(confidences, correct)
    number = _bin_numbers(confidences, bins, adaptive)
    counts = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(number, confidences, bins) / counts
        accuracy = np.bincount(number, correct, bins) / counts
    edges = np.linspace(0, 1, bins + 1)
    if adaptive:
        ends = counts.cumsum()[:-1].clip(0, len(confidences) - 1)
        edges = np.concatenate([[0.0], np.sort(confidences)[ends], [1.0]])
    return Reliability(edges[:-1], edges[1:], counts, confidence, accuracy)


def confidence_metrics(
    confidences: np.ndarray, correct: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """`ece`, `adaptive_ece` and `mce` in percent, the first two with the ends of a 95 % interval.

    The interval is the basic bootstrap's over samples (Davison & Hinkley 1997, section 5.2): a resample adds
    noise to every gap, so its error is larger than the sample's, as the sample's is larger than the truth.
    The basic interval takes that off, and the percentile interval would add it twice. Near an error of zero
    that is not enough. So the interval begins at 0 where a calibrated classifier with the same confidences
    has so large an error in more than 2.5 % of draws of what is right (Bröcker & Smith 2007), and it always
    holds the error itself.

    Args:
        confidences: [Q] in [0, 1].
        correct: bool[Q].

    Raises:
        ValueError: as `reliability`.
    """
    confidences, correct = _checked(confidences, correct)
    metrics: dict[str, float] = {}
    for name, adaptive in (("ece", False), ("adaptive_ece", True)):
        error, low, high = expected_error(
            confidences, correct, adaptive=adaptive, resamples=resamples, seed=seed
        )
        metrics |= {name: error, f"{name}/ci95_low": low, f"{name}/ci95_high": high}
    metrics["mce"] = 100 * reliability(confidences, correct).largest_error
    return metrics


def expected_error(
    confidences: np.ndarray,
    correct: np.ndarray,
    *,
    adaptive: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """One of the expected errors of `confidence_metrics` alone, and the ends of its interval, in percent."""
    confidences, correct = _checked(confidences, correct)
    error = reliability(confidences, correct, adaptive=adaptive).expected_error
    low, high = _interval(error, confidences, correct, adaptive, resamples, seed)
    return 100 * error, 100 * low, 100 * high


def probability_metrics(
    probabilities: np.ndarray, labels: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """`confidence_metrics` of the most probable class, and the `brier` score and `nll` with intervals.

    The Brier score is the squared distance of the probabilities to the label's, summed over the classes, from
    0 to 2 (Brier 1950). The negative log-likelihood is in nats. Both are means over samples, and their
    intervals are those of Student's t. A label below 0 is a class that the probabilities do not know.

    Args:
        probabilities: [Q, K], rows of sum 1.
        labels: int64[Q], indices of classes.

    Raises:
        ValueError: as `reliability`.
    """
    correct = probabilities.argmax(axis=1) == labels
    metrics = confidence_metrics(probabilities.max(axis=1), correct, resamples=resamples, seed=seed)
    known = labels >= 0
    of_label = np.where(known, probabilities[np.arange(len(labels)), labels.clip(min=0)], 0.0)
    brier = np.square(probabilities).sum(axis=1) - 2 * of_label + 1
    nll = -np.log(np.maximum(of_label, _LEAST))
    for name, values in (("brier", brier), ("nll", nll)):
        half = half_width(values) if len(values) > 1 else float("nan")
        mean = float(values.mean())
        metrics |= {name: mean, f"{name}/ci95_low": mean - half, f"{name}/ci95_high": mean + half}
    return metrics


def _checked(confidences: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64[Q]."""
    if confidences.ndim != 1 or confidences.shape != correct.shape or not len(confidences):
        raise ValueError(f"confidences{list(confidences.shape)} and correct{list(correct.shape)} do not fit")
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError("confidences are not all between 0 and 1")
    return confidences.astype(np.float64), correct.astype(np.float64)


def _bin_numbers(confidences: np.ndarray, bins: int, adaptive: bool) -> np.ndarray:
    """int64[Q]: the bin of each sample, from 0."""
    if not adaptive:
        return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidences, side="left")
    number = np.empty(len(confidences), np.int64)
    number[np.argsort(confidences, kind="stable")] = _equal_parts(len(confidences), bins)
    return number


def _equal_parts(samples: int, bins: int) -> np.ndarray:
    """int64[Q]: the bin of each sample in the order of confidence, where bins differ by one at most."""
    sizes = np.full(bins, samples // bins)
    sizes[: samples % bins] += 1
    return np.repeat(np.arange(bins), sizes)


def _interval(
    error: float, confidences: np.ndarray, correct: np.ndarray, adaptive: bool, resamples: int, seed: int
) -> tuple[float, float]:
    """The ends of the 95 % interval of an expected error; see `confidence_metrics`."""
    order = np.argsort(confidences, kind="stable")
    confidences, correct, samples = confidences[order], correct[order], len(confidences)
    number = _equal_parts(samples, BINS) if adaptive else _bin_numbers(confidences, BINS, False)
    generator, step = np.random.default_rng(seed), max(1, _CHUNK // samples)
    resampled, calibrated = np.empty(resamples), np.empty(resamples)
    for begin in range(0, resamples, step):
        rows = slice(begin, min(begin + step, resamples))
        shape = rows.stop - begin, samples
        drawn = generator.integers(0, samples, shape)
        if adaptive:  # the bins of a resample are equal parts of it, in its order
            drawn.sort(axis=1)
        bins = np.broadcast_to(number, shape) if adaptive else number[drawn]
        resampled[rows] = _errors((correct - confidences)[drawn], bins)
        right = generator.random(shape) < confidences
        calibrated[rows] = _errors(right - confidences, np.broadcast_to(number, shape))
    low, high = 2 * error - np.quantile(resampled, [0.975, 0.025])
    if error <= np.quantile(calibrated, 0.975):
        low = 0.0
    return float(np.clip(low, 0, error)), float(np.clip(high, error, 1))


def _errors(gaps: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """float64[R]: the expected error of each row of gaps[R, Q], what is right minus the confidence, in the
    bins[R, Q]."""
    rows, samples = gaps.shape
    flat = bins + BINS * np.arange(rows)[:, None]
    sums = np.bincount(flat.ravel(), gaps.ravel(), rows * BINS).reshape(rows, BINS)
    errors: np.ndarray = np.abs(sums).sum(axis=1) / samples
    return errors
