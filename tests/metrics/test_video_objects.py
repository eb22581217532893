"""J and F by hand, against numbers of the official program, and against a slow measurement by distances.

golden/video/davis.npz holds numbers that davisvideochallenge/davis2017-evaluation computed (db_eval_iou,
f_measure, db_statistics); its two functions of image processing, cv2.dilate and skimage's disk, were scipy's
there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from siamtransfer.metrics.video_objects import (
    boundary,
    contour_accuracy,
    over_frames,
    region_similarity,
    widened,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "video" / "davis.npz"


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    """bool[size, size] with a square of ones."""
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_region_similarity_by_hand() -> None:
    """Squares of 4 x 4 pixels, two columns apart: 8 pixels in both, 24 in either."""
    assert region_similarity(square(10, 2, 2, 4), square(10, 2, 4, 4)) == 8 / 24
    empty = np.zeros((5, 5), bool)
    assert region_similarity(empty, empty) == 1
    assert region_similarity(empty, ~empty) == 0


def test_boundary_by_hand() -> None:
    """A pixel is on the boundary where its right, lower or lower right neighbour differs; the last row looks
    to the right only, the last column down only, and the last pixel nowhere."""
    mask = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    expected = [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert boundary(mask).astype(int).tolist() == expected
    corner = np.zeros((3, 3), bool)
    corner[2, 1:] = corner[1, 2] = True
    assert boundary(corner).astype(int).tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert not boundary(np.ones((4, 6), bool)).any()


def test_contour_accuracy_by_hand() -> None:
    """In 40 x 40 pixels 0.008 of the diagonal is 0.45, rounded up to 1. The boundary of a square of 10 is a
    ring of 11 x 11 pixels: 11 + 11 + 9 + 9 = 40. A square that is moved by 1 agrees, one that is moved by 20
    does not. One that is moved by 3 shares 8 pixels of the upper row, and one more is next to it; the same
    holds for the lower row. Of the columns only the 2 pixels next to a row count: 9 + 9 + 2 = 20 of 40."""
    truth = square(40, 5, 5, 10)
    assert np.count_nonzero(boundary(truth)) == 40
    assert contour_accuracy(truth, truth) == 1
    assert contour_accuracy(truth, square(40, 5, 6, 10)) == 1
    assert contour_accuracy(truth, square(40, 25, 25, 10)) == 0
    assert contour_accuracy(truth, square(40, 5, 8, 10)) == 20 / 40


def test_contours_of_empty_masks() -> None:
    empty, some = np.zeros((20, 20), bool), square(20, 3, 3, 5)
    assert contour_accuracy(empty, empty) == 1
    assert contour_accuracy(empty, some) == contour_accuracy(some, empty) == 0


def test_the_numbers_are_those_of_the_official_program() -> None:
    with np.load(GOLDEN) as golden:
        shape = tuple(golden["shape"])
        count = int(np.prod(shape))
        truth, found = (
            np.unpackbits(golden[name], count=count).reshape(shape).astype(bool)
            for name in ("truth", "found")
        )
        pairs = list(zip(truth, found, strict=True))
        assert [region_similarity(*pair) for pair in pairs] == golden["J"].tolist()
        assert [contour_accuracy(*pair) for pair in pairs] == golden["F"].tolist()
        assert 0.1 < golden["F"].mean() < 0.9
        for values, length, expected in zip(
            golden["values"], golden["lengths"], golden["statistics"], strict=True
        ):
            assert over_frames(values[:length]) == pytest.approx(tuple(expected), abs=1e-15)


@pytest.mark.parametrize(("height", "width"), [(1, 300), (300, 1), (17, 23), (90, 120)])
def test_contours_agree_with_distances(height: int, width: int) -> None:
    """Pixels of a boundary count where the other boundary is at most so far away, by scipy's distances."""
    generator = np.random.default_rng(height)
    radius = int(np.ceil(0.008 * np.sqrt(height**2 + width**2)))
    for smooth in (0.5, 2.0, 5.0):
        truth, found = (
            ndimage.gaussian_filter(generator.standard_normal((height, width)), smooth) > 0.02
            for _ in range(2)
        )
        lines = [slow_boundary(mask) for mask in (truth, found)]
        if not all(line.any() for line in lines):
            continue
        far = [ndimage.distance_transform_edt(~line) for line in lines]
        recall = (far[1][lines[0]] <= radius).mean()
        precision = (far[0][lines[1]] <= radius).mean()
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert contour_accuracy(truth, found) == pytest.approx(expected, abs=1e-12)
        assert np.array_equal(widened(lines[0], radius), far[0] <= radius)


def slow_boundary(mask: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            steps = [(0, 1), (1, 0), (1, 1)]
            others = [(y + a, x + b) for a, b in steps if y + a < height and x + b < width]
            result[y, x] = any(mask[y, x] != mask[other] for other in others)
    return result


def test_means_over_frames_by_hand() -> None:
    """9 frames: the first quarter is frames 1 to 3, the last 7 to 9; half a frame's agreement is not
    recalled."""
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    score = over_frames(values)
    assert score.mean == pytest.approx(0.5)
    assert score.recall == pytest.approx(4 / 9)
    assert score.decay == pytest.approx(0.8 - 0.2)
    assert over_frames(np.array([0.3])) == (0.3, 0.0, 0.0)
