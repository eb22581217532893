"""Average precision by VOC's two definitions, against values worked out by hand and scikit-learn's curve."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from siamtransfer.metrics.average_precision import (
    all_points,
    average_precisions,
    eleven_points,
    mean_average_precision,
)
from siamtransfer.utils.errors import UserError

FALLING = np.arange(5.0, 0, -1)

# positives in the order of the ranking: all points, eleven points, steps
BY_HAND = {
    "first of one": ([1, 0, 0, 0, 0], 1.0, 1.0, 1.0),
    "last of one": ([0, 0, 0, 0, 1], 0.2, 0.2, 0.2),
    # recall 1/2 at precision 1/2, recall 1 at 2/4 and at no point more: the curve is flat at 1/2
    "second and fourth": ([0, 1, 0, 1, 0], 0.5, 0.5, 0.5),
    # recalls 1/3, 2/3, 1 at precisions 1, 2/3, 3/5
    "first, third, fifth": ([1, 0, 1, 0, 1], (1 + 2 / 3 + 3 / 5) / 3, (4 + 3 * 2 / 3 + 4 * 3 / 5) / 11,
                            (1 + 2 / 3 + 3 / 5) / 3),
    # recalls 1/3, 2/3, 1 at 1/2, 2/3, 3/4: what comes later is better, so the interpolated curve is 3/4
    "second, third, fourth": ([0, 1, 1, 1, 0], 3 / 4, 3 / 4, (1 / 2 + 2 / 3 + 3 / 4) / 3),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_values_by_hand(case: str) -> None:
    positives, area, eleven, steps = BY_HAND[case]
    positive = np.array(positives, bool)
    assert all_points(FALLING, positive) == pytest.approx(area, rel=1e-12)
    assert eleven_points(FALLING, positive) == pytest.approx(eleven, rel=1e-12)
    assert average_precision_score(positive, FALLING) == pytest.approx(steps, rel=1e-12)


def test_a_recall_that_is_met_exactly_counts() -> None:
    """Ten positives: recalls 0.1, 0.2, … are met, 0.3 and 0.7 too, which sums of 0.1 would miss."""
    positive = np.zeros(20, bool)
    positive[::2] = True
    scores = -np.arange(20.0)
    precision = np.arange(1, 11) / np.arange(1, 20, 2)
    assert eleven_points(scores, positive) == pytest.approx((precision[0] + precision.sum()) / 11, rel=1e-12)


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=60))
def test_agrees_with_scikit_learns_curve(samples: list[tuple[int, bool]]) -> None:
    """Scores of few values, so with many ties: the highest precision from each recall of its curve on."""
    scores = np.array([float(score) for score, _ in samples])
    positive = np.array([shown for _, shown in samples])
    if not positive.any():
        return
    precision, recall = (curve[:-1] for curve in precision_recall_curve(positive, scores)[:2])
    highest = [precision[recall >= at].max() for at in np.arange(11) / 10]
    assert eleven_points(scores, positive) == pytest.approx(np.mean(highest), rel=1e-12)
    rising = np.unique([0, *recall])
    area = sum((high - low) * precision[recall >= high].max() for low, high in pairwise(rising))
    assert all_points(scores, positive) == pytest.approx(area, rel=1e-12)
    assert all_points(scores, positive) >= average_precision_score(positive, scores) - 1e-12


def test_no_order_among_equals_and_no_scale_matters() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 6, 80).astype(float), generator.random(80) < 0.3
    order = generator.permutation(80)
    for rule in (all_points, eleven_points):
        assert rule(scores, positive) == rule(scores[order], positive[order])
        assert rule(scores, positive) == rule(3 * scores - 100, positive)


def test_ignored_samples_are_as_if_absent() -> None:
    generator = np.random.default_rng(1)
    scores, labels = generator.normal(size=(40, 3)), (generator.random((40, 3)) < 0.4).astype(int)
    ignored = generator.random((40, 3)) < 0.3
    values = average_precisions(scores, labels, ignored)
    for c in range(3):
        rows = ~ignored[:, c]
        assert values[c] == pytest.approx(100 * all_points(scores[rows, c], labels[rows, c] == 1))
    assert not np.allclose(values, average_precisions(scores, labels))
    assert mean_average_precision(scores, labels, ignored) == pytest.approx(values.mean())


def test_a_class_that_is_not_shown_is_left_out_of_the_mean() -> None:
    scores, labels = np.arange(8.0).reshape(4, 2), np.array([[0, 0], [0, 1], [0, 0], [0, 1]])
    assert np.isnan(average_precisions(scores, labels)[0])
    # of class 1 the first and the third in the ranking are shown: recall 1/2 at precision 1, 1 at 2/3
    assert mean_average_precision(scores, labels) == pytest.approx(100 * (1 + 2 / 3) / 2)
    hidden = np.zeros((4, 2), bool)
    hidden[[1, 3], 1] = True
    with pytest.raises(UserError, match="shows any class"):
        mean_average_precision(scores, labels, hidden)
