"""Panoptic quality: by hand, against a formula written out pixel by pixel, and its interval."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamtransfer.detection.metrics.panoptic_quality import (
    count_segments,
    panoptic_metrics,
    pq_intervals,
    read_counts,
    resampled_pq,
    write_counts,
)
from siamtransfer.utils.errors import UserError


def segment(key: int, category: int, crowd: int = 0) -> dict[str, Any]:
    return {"id": key, "category_id": category, "iscrowd": crowd}


def test_by_hand() -> None:
    """A 4 x 4 image of two halves; one pixel of the upper one is given to the lower one: 7/8 and 8/9."""
    truth = np.array([[1] * 4] * 2 + [[2] * 4] * 2)
    predicted = truth.copy()
    predicted[1, 0] = 2
    segments = [segment(1, 0), segment(2, 1)]
    counts = count_segments(truth, segments, predicted, segments, 3)
    assert counts == pytest.approx(np.array([[7 / 8, 1, 0, 0], [8 / 9, 1, 0, 0], [0, 0, 0, 0]]))
    metrics = panoptic_metrics(counts[None], ("a", "b", "c"), 1)
    assert metrics["panoptic/PQ_things"] == pytest.approx(100 * 7 / 8)
    assert metrics["panoptic/PQ_stuff"] == pytest.approx(100 * 8 / 9), "the absent class c is left out"
    assert metrics["panoptic/RQ"] == 100
    assert np.isnan(metrics["panoptic/PQ/c"])


def test_a_half_is_no_match_and_void_counts_nowhere() -> None:
    truth = np.array([[1, 1, 0, 0]])
    half = count_segments(truth, [segment(1, 0)], np.array([[5, 6, 0, 0]]), [segment(5, 0), segment(6, 0)], 1)
    assert half.tolist() == [[0, 0, 2, 1]], "an IoU of one half is not above one half"
    on_void = count_segments(
        truth, [segment(1, 0)], np.array([[5, 5, 5, 7]]), [segment(5, 0), segment(7, 0)], 1
    )
    assert on_void.tolist() == [[1, 1, 0, 0]], (
        "void is left out of the union, and a segment on it is no error"
    )
    crowd = count_segments(truth, [segment(1, 0, crowd=1)], np.array([[5, 5, 0, 0]]), [segment(5, 0)], 1)
    assert crowd.tolist() == [[0, 0, 0, 0]]
    other = count_segments(truth, [segment(1, 0, crowd=1)], np.array([[5, 5, 0, 0]]), [segment(5, 1)], 2)
    assert other.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]], "a crowd of another class excuses nothing"


def by_pixels(truth: Any, segments: Any, predicted: Any, found: Any, classes: int) -> np.ndarray:
    """The definition with sets of pixels (arXiv 1801.00868, sections 4.1 and 4.2)."""
    pixels_true, pixels_found = defaultdict(set), defaultdict(set)
    for place, (a, b) in enumerate(zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True)):
        pixels_true[a].add(place)
        pixels_found[b].add(place)
    void = pixels_true[0]
    counts, matched_true, matched_found = np.zeros((classes, 4)), set(), set()
    for true in segments:
        for guess in found:
            a, b = pixels_true[true["id"]], pixels_found[guess["id"]]
            if true["iscrowd"] or true["category_id"] != guess["category_id"] or not a or not b:
                continue
            iou = len(a & b) / len((a | b) - (b & void))
            if iou > 0.5:
                counts[true["category_id"]] += (iou, 1, 0, 0)
                matched_true.add(true["id"])
                matched_found.add(guess["id"])
    for true in segments:
        if not true["iscrowd"] and true["id"] not in matched_true and pixels_true[true["id"]]:
            counts[true["category_id"], 3] += 1
    for guess in found:
        b = pixels_found[guess["id"]]
        if guess["id"] in matched_found or not b:
            continue
        crowds = [
            pixels_true[true["id"]]
            for true in segments
            if true["iscrowd"] and true["category_id"] == guess["category_id"]
        ]
        if len(b & void.union(*crowds)) / len(b) <= 0.5:
            counts[guess["category_id"], 2] += 1
    return counts


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 7, (4, 5))
    truth = np.kron(coarse, np.ones((6, 6), int))
    moved = np.roll(truth, generator.integers(-2, 3, 2), (0, 1))
    predicted = np.where(generator.random(truth.shape) < 0.1, generator.integers(0, 7, truth.shape), moved)
    segments = [segment(k, int(generator.integers(3)), int(k == 1)) for k in np.unique(truth) if k]
    found = [segment(s["id"], s["category_id"]) for s in segments]
    found[-1]["category_id"] = int(generator.integers(3))
    present = set(np.unique(predicted).tolist()) - {0}
    found += [segment(k, int(generator.integers(3))) for k in present - {s["id"] for s in segments}]
    counts = count_segments(truth, segments, predicted, found, 3)
    assert counts == pytest.approx(by_pixels(truth, segments, predicted, found, 3), abs=1e-12)


def test_the_interval_is_over_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    counts = np.zeros((40, 3, 4))
    counts[..., 1:] = generator.integers(0, 3, (40, 3, 3))
    counts[..., 0] = counts[..., 1] * generator.uniform(0.5, 1, (40, 3))
    low, high = pq_intervals([counts], 2)["PQ"]
    assert low < panoptic_metrics(counts, ("a", "b", "c"), 2)["panoptic/PQ"] < high
    assert pq_intervals([counts, counts], 2)["PQ"] == (0, 0), "a set differs from itself by nothing"
    repeated = np.repeat(counts[:1], 5, axis=0)
    alike = resampled_pq([repeated], 2)["PQ"]
    assert alike == pytest.approx(panoptic_metrics(repeated, ("a", "b", "c"), 2)["panoptic/PQ"])
    write_counts(tmp_path, counts)
    assert np.array_equal(read_counts(tmp_path), counts)
    (tmp_path / "panoptic_counts.npz").write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=r"panoptic_counts\.npz cannot be read"):
        read_counts(tmp_path)
