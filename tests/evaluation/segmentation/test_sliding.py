"""Sliding windows of the segmentation probes: classes of cells, averaged scores, and the program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from siamtransfer.evaluation.dense.windows import Place, Windows
from siamtransfer.evaluation.segmentation import scoring
from siamtransfer.evaluation.segmentation.scoring import predict
from siamtransfer.evaluation.segmentation.shares import patch_labels, patch_shares
from siamtransfer.programs.segmentation import main

SMALL = [
    *("random:timm:test_vit", "--data.name=fashion-scenes", "--data.size=64", "--data.count=4"),
    *("--data.test-count=2", "--device=cpu", "--precision=float32", "--resize=shorter", "--probe=knn"),
    *("--forward-batch-size=1", "--k=5"),
]


@pytest.mark.parametrize("place", [Place(0, 32, 0, 32, 40, 48), Place(8, 40, 16, 48, 40, 48)])
@pytest.mark.parametrize("size", [(20, 24), (31, 17), (3, 2)])
def test_classes_of_the_cells_of_a_window_pixel_by_pixel(place: Place, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], size).astype(np.uint8)
    shares = patch_shares(mask, (2, 4), 3, 255, place).reshape(2, 4, 3)
    labels = patch_labels(mask, (2, 4), 3, 255, "majority", place)
    inner = (place.bottom - place.top, place.right - place.left)
    for row in range(2):
        for column in range(4):
            inside = [
                mask[y, x]
                for y in range(size[0])
                for x in range(size[1])
                if int(((y + 0.5) * place.height / size[0] - place.top) * 2 / inner[0] // 1) == row
                and int(((x + 0.5) * place.width / size[1] - place.left) * 4 / inner[1] // 1) == column
            ]
            if not inside:
                y = int((place.top + (row + 0.5) * inner[0] / 2) * size[0] / place.height)
                x = int((place.left + (column + 0.5) * inner[1] / 4) * size[1] / place.width)
                inside = [mask[y, x]]
            counted = [value for value in inside if value != 255]
            expected = np.bincount(counted, minlength=3) / max(1, len(counted))
            assert shares[row, column] == pytest.approx(expected)
            counts = np.bincount([3 if value == 255 else value for value in inside], minlength=4)
            assert labels[row, column] == (-1 if counts.argmax() == 3 else counts.argmax())


def slid(maps: list[Tensor], places: list[Place], size: tuple[int, int]) -> Tensor:
    """The averaged scores [K, H, W], by padding every window's to the input."""
    height, width = places[0].height, places[0].width
    total, count = torch.zeros(maps[0].shape[0], height, width), torch.zeros(height, width)
    for scores, p in zip(maps, places, strict=True):
        inner = functional.interpolate(scores[None], (p.bottom - p.top, p.right - p.left), mode="bilinear")
        margins = (p.left, width - p.right, p.top, height - p.bottom)
        total += functional.pad(inner[0], margins)
        count += functional.pad(torch.ones_like(inner[0, 0]), margins)
    return functional.interpolate((total / count)[None], size, mode="bilinear")[0]


def test_scores_are_averaged_where_windows_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Windows(16, 9).places(21, 30)
    maps = list(torch.randn(len(places), 5, 3, 4, generator=torch.Generator().manual_seed(0)))
    rows = torch.cat([scores.flatten(1).T for scores in maps])
    expected = slid(maps, places, (40, 33)).argmax(dim=0).numpy()
    parts = [((3, 4), place) for place in places]
    assert np.array_equal(predict(rows, parts, (40, 33)), expected)
    monkeypatch.setattr(scoring, "ENLARGED_BYTES", 4 * 40 * 33 * 2)  # two outputs at a time
    assert np.array_equal(predict(rows, parts, (40, 33)), expected)


def score(*words: str) -> dict[str, Any]:
    record: dict[str, Any] | None = main([*SMALL, *words])
    assert record is not None
    return record


def test_a_window_over_everything_is_the_whole_image_and_smaller_ones_are_stamped() -> None:
    whole, one = score(), score("--window=500", "--stride=7")
    assert one["metrics"] == whole["metrics"]
    assert whole["protocol"]["input"]["view"] == "whole image"
    several = score("--window=48", "--stride=16")
    assert several["protocol"]["input"]["view"] == "windows of 48 pixels, stride 16"
    assert several["metrics"]["ceiling/miou"] != whole["metrics"]["ceiling/miou"]
    assert several["protocol"]["settings"] == whole["protocol"]["settings"]
