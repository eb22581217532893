"""Patches and their classes, the linear probe, and predictions at the size of the mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from siamtransfer.evaluation.dense.model import PixelMaps
from siamtransfer.evaluation.dense.windows import Place
from siamtransfer.evaluation.segmentation import scoring
from siamtransfer.evaluation.segmentation.config import SegmentationConfig
from siamtransfer.evaluation.segmentation.linear import fit_linear, split_by_image
from siamtransfer.evaluation.segmentation.pictures import class_colours, paint
from siamtransfer.evaluation.segmentation.probe import Patches
from siamtransfer.evaluation.segmentation.scoring import OutputCounts, predict
from siamtransfer.evaluation.segmentation.shares import patch_labels
from siamtransfer.metrics.segmentation import count_image
from siamtransfer.utils.errors import UserError

WHOLE = Place.whole(1, 1)
CPU = torch.device("cpu")


def test_majority_and_nearest_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 2, 1, 2], [255, 255, 2, 2], [255, 1, 0, 0]], np.uint8)
    assert patch_labels(mask, (2, 2), 3, 255).tolist() == [[0, 1], [-1, 0]]  # of 2 and 2 the lower class
    assert patch_labels(mask, (2, 2), 3, 255, "nearest").tolist() == [[2, 2], [1, 0]]


@pytest.mark.parametrize(
    ("height", "width", "h", "w"), [(7, 5, 3, 2), (3, 4, 7, 9), (6, 6, 6, 6), (1, 9, 2, 4)]
)
def test_majority_agrees_with_counting_pixel_by_pixel(height: int, width: int, h: int, w: int) -> None:
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    found = patch_labels(mask, (h, w), 3, 255)
    for row in range(h):
        for column in range(w):
            inside = [
                3 if mask[y, x] == 255 else mask[y, x]
                for y in range(height)
                for x in range(width)
                if int((y + 0.5) * h / height) == row and int((x + 0.5) * w / width) == column
            ]
            if inside:
                best = int(np.bincount(inside, minlength=4).argmax())
            else:
                best = int(mask[int((row + 0.5) * height / h), int((column + 0.5) * width / w)])
            assert found[row, column] == (-1 if best in (3, 255) else best)


def test_scores_are_enlarged_as_by_one_interpolation(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(3 * 4, 7, generator=torch.Generator().manual_seed(0))
    whole = functional.interpolate(
        scores.T.reshape(1, 7, 3, 4), size=(11, 9), mode="bilinear", align_corners=False
    )
    expected = whole[0].argmax(dim=0).numpy()
    assert np.array_equal(predict(scores, [((3, 4), WHOLE)], (11, 9)), expected)
    monkeypatch.setattr(scoring, "ENLARGED_BYTES", 4 * 11 * 9 * 2)  # two outputs at a time
    assert np.array_equal(predict(scores, [((3, 4), WHOLE)], (11, 9)), expected)


def test_matched_outputs_are_counted_as_their_classes() -> None:
    random = np.random.default_rng(0)
    mask, output = random.choice([0, 1, 2, 255], (8, 9)).astype(np.uint8), random.integers(0, 5, (8, 9))
    classes_of = np.array([2, 0, 1, 1, 2])
    counts = OutputCounts(3, 5)
    counts.add(output, mask, 255)
    assert counts.total().sum() == (mask != 255).sum()
    right, predicted, truth = counts.per_image(classes_of).areas()
    expected = count_image(classes_of[output], mask, 3)
    assert np.array_equal(right, np.diagonal(expected))
    assert np.array_equal(predicted, expected.sum(axis=0))
    assert np.array_equal(truth, expected.sum(axis=1))


def make_patches(images: int = 10, each: int = 20) -> Patches:
    """Classes 0 and 2 of three, told apart by the first feature."""
    generator = torch.Generator().manual_seed(0)
    labels = 2 * torch.randint(0, 2, (images * each,), generator=generator)
    features = torch.randn(images * each, 4, generator=generator)
    features[:, 0] += 4.0 * (labels - 1)
    return Patches(features, labels, torch.arange(images).repeat_interleave(each), ("a", "b", "c"))


def test_the_linear_probe_separates_and_never_gives_a_class_without_patches() -> None:
    train = make_patches()
    (probe,) = fit_linear(train, SegmentationConfig(), CPU)
    scores = probe.scores(train.features)
    assert scores.shape == (200, 3) and bool(torch.isfinite(scores).all())
    assert float((scores.argmax(dim=1) == train.labels).double().mean()) > 0.99
    assert probe.protocol["chosen_strength"] in probe.protocol["strengths"]
    tried = {float(strength): miou for strength, miou in probe.protocol["held_out_patch_miou"].items()}
    assert tried[probe.protocol["chosen_strength"]] == max(tried.values())


def test_patches_of_an_image_are_on_one_side() -> None:
    train = make_patches()
    fitted, held = split_by_image(train.images, 0.25, 0)
    assert not set(train.images[fitted].tolist()) & set(train.images[held].tolist())
    assert (len(torch.unique(train.images[held])), len(fitted) + len(held)) == (2, 200)


def test_train_of_one_class_is_refused() -> None:
    train = make_patches()
    one = Patches(train.features, torch.full_like(train.labels, 1), train.images, train.classes)
    with pytest.raises(UserError, match="all are of 'b'"):
        fit_linear(one, SegmentationConfig(), CPU)


def test_pixels_of_a_patch_are_its_features() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    maps = PixelMaps(2)(x)
    assert maps.shape == (2, 12, 2, 3)
    assert sorted(maps[1, :, 1, 2].tolist()) == sorted(x[1, :, 2:4, 4:6].flatten().tolist())


def test_colours_are_those_of_voc_and_ignored_pixels_are_grey() -> None:
    colours = class_colours(150)
    assert colours[[0, 1, 2, 20]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 64, 128]]
    assert len(np.unique(colours, axis=0)) == 150
    assert paint(np.array([[1, 255]], np.uint8), colours, 255).tolist() == [[[128, 0, 0], [224, 224, 224]]]
