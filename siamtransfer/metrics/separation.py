"""How well one number per image tells known images from unknown ones: AUROC, AUPR, and FPR at 95 % TPR.

A higher score means "known". Known images are the positive ones, as in Liang et al. 2018 (ODIN, section 4.2):
the true positive rate is the share of known images at or above a threshold, the false positive rate that of
the unknown ones. FPR95 is the false positive rate at the highest threshold that keeps 95 % of the known
images. AUPR is the average precision, with the known images as positives (`aupr_in`) or the unknown ones
(`aupr_out`); unlike AUROC it depends on how many there are of each.

Legend: P known images, N unknown ones, T thresholds, R resamples.
"""

from __future__ import annotations

import numpy as np

KEPT = 0.95
"""The share of known images that are kept, for `fpr95`."""
RESAMPLES = 1000
THRESHOLDS = 1024
"""The most thresholds that resamples are scored at; the scores between two of them count as equal there."""
_CHUNK = 2**22  # numbers of a chunk of resamples that are in memory at once
_TAILS = (0.025, 0.975)


def separation_metrics(
    known: np.ndarray, unknown: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """`auroc`, `aupr_in`, `aupr_out` and `fpr95` in percent, each with the ends of a 95 % interval.

    The interval is the percentile bootstrap's; known and unknown images are resampled apart. Of more than
    THRESHOLDS different scores, resamples are scored at so many quantiles, and the interval is moved by what
    this changes in the number itself.

    Args:
        known: float[P], scores of known images.
        unknown: float[N], those of unknown ones.

    Raises:
        ValueError: there are none of either, or a score is not finite.
    """
    for scores in (known, unknown):
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            raise ValueError("scores of known and unknown images are finite, and there are some of both")
    values, number = np.unique(np.concatenate([known, unknown]), return_inverse=True)
    exact = _at_thresholds(*_counts(number, len(known), len(values)))
    coarse = number
    if len(values) > THRESHOLDS:
        ranks = np.argsort(np.argsort(number, kind="stable"), kind="stable")
        coarse = (np.arange(len(number)) * THRESHOLDS // len(number))[ranks]
    counts = _counts(coarse, len(known), int(coarse.max()) + 1)
    centre = _at_thresholds(*counts)
    drawn = _resampled(*counts, resamples, np.random.default_rng(seed))
    metrics: dict[str, float] = {}
    for name, values_drawn in drawn.items():
        value = float(exact[name][0])
        ends = np.quantile(values_drawn, _TAILS) - float(centre[name][0]) + value
        low, high = np.clip(ends, 0, 1).tolist()
        metrics |= {name: 100 * value, f"{name}/ci95_low": 100 * low, f"{name}/ci95_high": 100 * high}
    return metrics


def shares_above(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """float64[N]: for each unknown image the share of the known ones with a higher score; equal scores count
    half. The mean is the AUROC (Hanley & McNeil 1982)."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, unknown, side="left")
    not_above = np.searchsorted(ordered, unknown, side="right")
    shares: np.ndarray = 1 - (below + not_above) / (2 * len(known))
    return shares


def _counts(number: np.ndarray, known: int, thresholds: int) -> tuple[np.ndarray, np.ndarray]:
    """How many known and unknown images have each score, int64[1, T], the highest score first; `number` of
    the known ones, then of the unknown ones, is the rank of the score from the lowest."""
    parts = number[:known], number[known:]
    known_counts, unknown_counts = (np.bincount(part, minlength=thresholds)[None, ::-1] for part in parts)
    return known_counts, unknown_counts


def _resampled(
    known: np.ndarray, unknown: np.ndarray, resamples: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """float64[R] of every number, for counts [1, T] of the two kinds of images."""
    step = max(1, _CHUNK // known.shape[1])
    chunks = []
    for begin in range(0, resamples, step):
        rows = min(step, resamples - begin)
        drawn = [generator.multinomial(c.sum(), c[0] / c.sum(), rows) for c in (known, unknown)]
        chunks.append(_at_thresholds(drawn[0], drawn[1]))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _at_thresholds(known: np.ndarray, unknown: np.ndarray) -> dict[str, np.ndarray]:
    """float64[R] of every number, for counts [R, T] of known and unknown images at each score, the highest
    first."""
    kept, passed = known.cumsum(axis=1), unknown.cumsum(axis=1)
    total, others = kept[:, -1:], passed[:, -1:]
    halves = kept - known / 2  # known images above each score, and half of those at it
    enough = np.argmax(kept >= KEPT * total, axis=1)
    # From the lowest score up, for the unknown images as positives.
    caught = (others - passed + unknown)[:, ::-1]
    lost = (total - kept + known)[:, ::-1]
    return {
        "auroc": (unknown * halves).sum(axis=1) / (total * others)[:, 0],
        "aupr_in": _average_precision(known, kept, passed) / total[:, 0],
        "aupr_out": _average_precision(unknown[:, ::-1], caught, lost) / others[:, 0],
        "fpr95": passed[np.arange(len(passed)), enough] / others[:, 0],
    }


def _average_precision(steps: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """float64[R]: the precision at each threshold, summed over the positives [R, T] that it adds."""
    precision = right / np.maximum(right + wrong, 1)
    summed: np.ndarray = (steps * precision).sum(axis=1)
    return summed
