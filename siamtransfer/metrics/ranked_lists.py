"""How well a ranked list of a database answers a query: average precision by trapezoids, precision at k.

The definitions are those of the revisited Oxford and Paris benchmark (Radenović et al., CVPR 2018; code in
filipradenovic/revisitop). Junk images are taken out of the list before anything is counted. The trapezoid
gives other values than metrics/average_precision.py: between two answers precision is taken to change
linearly, and it begins at 1.

Legend: a position counts from 0; P positives of a query.
"""

from __future__ import annotations

import numpy as np

from siamtransfer.metrics.paired_bootstrap import mean_differences, percentile_interval


def without_junk(positions: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """int64[P]: the positions of the positives, rising, in the list from which the junk is taken out.

    `positions` int64[P] and `junk` int64[J] are positions in the whole list, in any order.
    """
    positions = np.sort(positions)
    return positions - np.searchsorted(np.sort(junk), positions)


def trapezoid_average_precision(positions: np.ndarray, positives: int) -> float:
    """The area under precision over recall, from 0 to 1, joined by straight lines.

    `positions` int64[n] are those of the positives that were found, rising; `positives` is P. Positives that
    are not among the n add nothing.
    """
    found = np.arange(len(positions))
    before = np.where(positions == 0, 1.0, found / np.maximum(positions, 1))
    after = (found + 1) / (positions + 1)
    return float(((before + after) / 2).sum() / positives)


def precision_at(positions: np.ndarray, k: int) -> float:
    """The share of positives among the first k, from 0 to 1, for the rising positions int64[P] of all
    positives, P at least 1. Where the last positive comes earlier than k, the list ends with it."""
    length = min(int(positions[-1]) + 1, k)
    return float((positions < length).sum() / length)


def mean_of_queries(
    name: str,
    values: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, float]:
    """NAME, the mean of float64[Q] in percent, with NAME/ci95_low and NAME/ci95_high: the 95 % interval by
    the percentile bootstrap over queries or, with `groups` int64[Q], over groups of queries.

    Queries that do not count have NaN, and one at least does. A single query or group has no interval.
    """
    counts = ~np.isnan(values)
    counted, groups = values[counts], None if groups is None else groups[counts]
    found = {name: 100 * float(counted.mean())}
    if len(np.unique(groups) if groups is not None else counted) < 2:
        return found
    generator = np.random.default_rng(seed)
    drawn = mean_differences(np.zeros_like(counted), counted, resamples, generator, groups)
    low, high = percentile_interval(100 * drawn)
    return found | {f"{name}/ci95_low": low, f"{name}/ci95_high": high}
