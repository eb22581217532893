"""The measures of depth: by hand, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.metrics.depth import DepthRange, ImageDepthScores, score_depth
from siamtransfer.utils.errors import UserError


def test_two_pixels_by_hand() -> None:
    scores = score_depth(np.array([2.0, 3.0]), np.array([1.0, 3.0]))
    assert scores.rmse == pytest.approx(np.sqrt(0.5))
    assert scores.abs_rel == pytest.approx(0.5)
    assert scores.log10 == pytest.approx(np.log10(2) / 2)
    assert scores.silog == pytest.approx(100 * np.log(2) / 2)  # the deviation of (ln 2, 0)
    assert (scores.delta1, scores.delta2, scores.delta3) == (0.5, 0.5, 0.5)


def test_the_thresholds_are_powers_of_a_ratio_and_symmetric() -> None:
    truth = np.array([1.0, 1.0, 1.0, 1.0])
    scores = score_depth(np.array([1.24, 1 / 1.26, 1.5, 1.96]), truth)
    assert (scores.delta1, scores.delta2, scores.delta3) == (0.25, 0.75, 0.75)
    assert score_depth(np.array([1.25]), truth[:1]).delta1 == 0  # the threshold itself is excluded


def test_a_perfect_prediction_and_a_wrong_scale() -> None:
    truth = np.random.default_rng(0).uniform(0.5, 9, 100)
    assert score_depth(truth, truth) == (0, 0, 0, 0, 1, 1, 1)
    scaled = score_depth(2 * truth, truth)
    assert scaled.silog == pytest.approx(0, abs=1e-10)
    assert scaled.abs_rel == pytest.approx(1)
    assert scaled.rmse == pytest.approx(np.sqrt(np.square(truth).mean()))


def test_a_set_is_the_mean_of_its_images_and_pooled_is_not() -> None:
    kept, one = ImageDepthScores(), np.ones((1, 2))
    everywhere = np.ones((1, 2), bool)
    kept.add(0, one, one, everywhere)
    kept.add(1, 3 * one, one, everywhere)
    kept.add(2, one, one, ~everywhere)  # nothing counts
    assert kept.images == [0, 1]
    assert kept.values("rmse").mean() == pytest.approx(1)
    assert kept.pooled_rmse == pytest.approx(np.sqrt(2))


def test_the_ends_of_the_range_are_excluded() -> None:
    depth = np.array([0, 1e-3, 0.5, 10, 11])
    assert DepthRange(1e-3, 10).valid(depth).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_depths_that_cannot_be_are_refused(value: float) -> None:
    with pytest.raises(UserError, match="not finite or not above 0"):
        score_depth(np.array([value]), np.array([1.0]))
