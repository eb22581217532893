"""Areas of segmented images as files, and two of them compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from siamtransfer.metrics.segmentation import PerImageCounts, count_image
from siamtransfer.programs.compare import CompareOptions, compare_records
from siamtransfer.records.comparison import compare
from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.records.predictions import Predictions, read_kept
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError

CLASSES, IMAGES = 4, 30


def areas(right: float, masks_seed: int = 0, images: int = IMAGES) -> PerImageCounts:
    """Counts of images whose masks depend on `masks_seed` alone; a fraction `right` is predicted right."""
    truth, chance = np.random.default_rng(masks_seed), np.random.default_rng(100)
    counts = PerImageCounts(CLASSES)
    for _ in range(images):
        mask = truth.integers(0, CLASSES, (10, 10), dtype=np.uint8)
        wrong = chance.integers(0, CLASSES, mask.shape)
        counts.add(count_image(np.where(chance.random(mask.shape) < right, mask, wrong), mask, CLASSES))
    return counts


def result(right: float, masks_seed: int = 0, **settings: PerImageCounts) -> Result:
    kept = ImageAreas({"linear": areas(right, masks_seed), **settings})
    return Result("segmentation", {}, {"resize": "mask"}, {"test_fingerprint": "f"}, kept)


def test_areas_are_read_back_equal(tmp_path: Path):
    kept = ImageAreas({"linear": areas(0.5), "knn/k=20": areas(0.7)})
    kept.write(tmp_path / "a.npz")
    read = read_kept(tmp_path / "a.npz")
    assert isinstance(read, ImageAreas) and list(read.settings) == ["linear", "knn/k=20"]
    assert len(read) == IMAGES
    for name, counts in kept.settings.items():
        assert np.array_equal(read.settings[name].entries, counts.entries)
    read.write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_settings_of_other_masks_are_refused():
    with pytest.raises(ValueError, match="linear and knn of other masks: image 0 has other pixels"):
        ImageAreas({"linear": areas(0.5), "knn": areas(0.5, masks_seed=1)})
    with pytest.raises(ValueError, match="no areas"):
        ImageAreas({"linear": PerImageCounts(CLASSES)})


def test_a_damaged_file_is_named(tmp_path: Path):
    ImageAreas({"linear": areas(0.5)}).write(tmp_path / "a.npz")
    arrays = dict(np.load(tmp_path / "a.npz"))
    del arrays["linear/areas/truth"]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=r"a\.npz has no array truth"):
        read_kept(tmp_path / "a.npz")


def test_the_better_segmentation_is_told_by_images():
    comparison = compare(result(0.5), result(0.6))
    main = comparison.differences["miou"]
    assert comparison.better == 1 and 0 < main.low < main.value < main.high
    assert main.first == pytest.approx(100 * areas(0.5).scores().miou)
    assert comparison.p_value is None and "McNemar" not in str(comparison)
    assert list(comparison.differences) == ["miou", "pixel_accuracy", "mean_accuracy"]
    assert compare(result(0.5), result(0.5)).better is None


def test_records_are_compared_by_the_program(tmp_path: Path, capsys: pytest.CaptureFixture):
    result(0.5).save(tmp_path / "a.json")
    result(0.6).save(tmp_path / "b.json")
    record = compare_records(CompareOptions(str(tmp_path / "a.json"), str(tmp_path / "b.json")))
    assert record["metrics"]["compare/linear/miou/difference"] > 0
    assert record["protocol"]["test"] is None and "over images" in record["protocol"]["interval"]
    assert record["protocol"]["samples"] == IMAGES and record["protocol"]["resamples"] == 1000
    assert "30 images" in capsys.readouterr().err


def test_other_masks_and_other_kinds_are_refused():
    with pytest.raises(UserError, match="image 0 has other pixels of its classes"):
        compare(result(0.5), result(0.6, masks_seed=1))
    fewer = Result("segmentation", {}, {"resize": "mask"}, {"test_fingerprint": "f"},
                   ImageAreas({"linear": areas(0.5, images=9)}))  # fmt: skip
    with pytest.raises(UserError, match="30 images of 4 classes and 9 images of 4 classes"):
        compare(result(0.5), fewer)
    labels = Predictions(np.arange(3), {"linear": np.arange(3)})
    other = Result("segmentation", {}, {"resize": "mask"}, {"test_fingerprint": "f"}, labels)
    with pytest.raises(UserError, match="one of them has areas of images"):
        compare(result(0.5), other)
