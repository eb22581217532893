"""Average precision by trapezoids, precision at k: by hand, by a slow walk, and by the benchmark's code."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.metrics.ranked_lists import (
    mean_of_queries,
    precision_at,
    trapezoid_average_precision,
    without_junk,
)


def positions(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_average_precision_by_hand() -> None:
    # Positives first and third of two: precision goes from 1 to 1, then from 1/2 to 2/3.
    # (1 + 1) / 2 * 1/2 + (1/2 + 2/3) / 2 * 1/2 = 1/2 + 7/24 = 19/24
    assert trapezoid_average_precision(positions(0, 2), 2) == pytest.approx(19 / 24)
    # One positive, fourth: from 0 to 1/4, the mean is 1/8.
    assert trapezoid_average_precision(positions(3), 1) == pytest.approx(1 / 8)
    assert trapezoid_average_precision(positions(0, 1, 2), 3) == 1
    # The second of two is not found: only the first counts, with half of the recall.
    assert trapezoid_average_precision(positions(0), 2) == 0.5
    assert trapezoid_average_precision(positions(), 2) == 0


def test_junk_moves_only_what_comes_after_it() -> None:
    # List: junk, positive, other, positive, junk, positive. Without junk: 0, 2, 3.
    assert without_junk(positions(5, 1, 3), positions(4, 0)).tolist() == [0, 2, 3]
    assert without_junk(positions(0, 1), positions(2, 9)).tolist() == [0, 1]
    assert without_junk(positions(2, 4), positions()).tolist() == [2, 4]


def test_precision_ends_with_the_last_positive() -> None:
    assert precision_at(positions(0, 2), 1) == 1
    assert precision_at(positions(0, 2), 5) == pytest.approx(2 / 3)  # the list ends at the third image
    assert precision_at(positions(1, 20), 10) == pytest.approx(1 / 10)


def test_the_benchmarks_own_numbers() -> None:
    """What compute_map of filipradenovic/revisitop (python/evaluate.py) gives for the same draws."""
    draw = np.random.default_rng(7)
    ranks = np.stack([draw.permutation(40) for _ in range(5)], 1)
    expected = [0.10059229269755585, 0.17576194900756303, None, 0.020833333333333332, 0.592666008455482]
    at_k = [[0.0, 0.0, 0.1], [0.0, 0.0, 0.2], None, [0.0, 0.0, 0.0], [1.0, 0.6, 0.4]]
    for query in range(5):
        images = draw.permutation(40)
        positives = images[: (3, 6, 0, 1, 9)[query]]
        junk = images[10 : 10 + (5, 0, 4, 7, 12)[query]]
        place = np.argsort(ranks[:, query])
        if not len(positives):
            continue
        found = without_junk(place[positives], place[junk])
        assert trapezoid_average_precision(found, len(positives)) == pytest.approx(expected[query], abs=1e-12)
        assert [precision_at(found, k) for k in (1, 5, 10)] == pytest.approx(at_k[query], abs=1e-12)


def walked(ranked: list[str], positives: int) -> float:
    """The average precision by walking a list of the kinds of its images, one after the other."""
    area, seen, hits = 0.0, 0, 0
    for kind in ranked:
        if kind == "junk":
            continue
        before = hits / seen if seen else 1.0
        seen += 1
        if kind == "positive":
            hits += 1
            area += np.trapezoid([before, hits / seen], [(hits - 1) / positives, hits / positives])
    return float(area)


@pytest.mark.parametrize("seed", range(20))
def test_a_walk_over_the_list_gives_the_same(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ranked = [*draw.choice(["positive", "junk", "other"], 30, p=[0.2, 0.3, 0.5]).tolist(), "positive"]
    at = {kind: np.flatnonzero(np.array(ranked) == kind) for kind in ("positive", "junk")}
    found = without_junk(at["positive"], at["junk"])
    expected = walked(ranked, len(found))
    assert trapezoid_average_precision(found, len(found)) == pytest.approx(expected, abs=1e-12)


def test_the_mean_leaves_out_queries_that_do_not_count() -> None:
    values = np.array([0.25, np.nan, 0.75, 0.5])
    found = mean_of_queries("x", values)
    assert found["x"] == 50
    assert 25 <= found["x/ci95_low"] < 50 < found["x/ci95_high"] <= 75
    assert mean_of_queries("x", np.array([np.nan, 0.5])) == {"x": 50}
    grouped = mean_of_queries("x", np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    assert (grouped["x/ci95_low"], grouped["x/ci95_high"]) == (0, 100)  # of two groups both may be the same
    assert mean_of_queries("x", np.array([0.0, 1.0]), np.array([3, 3])) == {"x": 50}
