"""Folders and masks that are not right, as a user of the segmentation probes meets them: a sentence, or a
right result, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.mask_layouts import mask_of, write_image, write_mask, write_own

from siamtransfer.evaluation.segmentation.evaluate import SAME_IMAGES
from siamtransfer.programs.segmentation import main
from siamtransfer.utils.errors import UserError

FAST = ["pixels", "--data.name=masks", "--size=32", "--pixel-patch=4", "--device=cpu", "--precision=float32"]


def score(root: Path, *words: str) -> dict[str, Any]:
    record: dict[str, Any] | None = main([*FAST, f"--data.root={root}", "--probe=knn", "--k=3", *words])
    assert record is not None
    return record


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Three train and two val images of two classes."""
    for split, count in {"train": 3, "val": 2}.items():
        write_own(tmp_path / "set", [mask_of([0, 1])] * count, ["sea", "sand"], split)
    return tmp_path / "set"


def save(path: Path, values: np.ndarray, mode: str | None = None) -> None:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)


def as_rgb(root: Path) -> None:
    for path in (root / "masks/val").iterdir():
        save(path, np.asarray(Image.open(path)) * np.uint8(200), "RGB")


def as_jpeg(root: Path) -> None:
    for path in (root / "masks/val").iterdir():
        save(path.with_suffix(".jpg"), np.asarray(Image.open(path)))
        path.unlink()


def swapped(root: Path) -> None:
    (root / "images").rename(root / "kept")
    (root / "masks").rename(root / "images")
    (root / "kept").rename(root / "masks")


def two_images(root: Path) -> None:
    write_image(root / "images/val/1.png", 5)


def two_masks(root: Path) -> None:
    write_mask(root / "masks/val/1.tif", mask_of([0, 1]))


def stretched(root: Path) -> None:
    for path in (root / "masks/val").iterdir():
        save(path, mask_of([0, 256]))


def all_ignored(root: Path) -> None:
    for path in (root / "masks/val").iterdir():
        save(path, mask_of([255]))


def mask_of_val(values: np.ndarray, mode: str | None = None) -> Callable[[Path], None]:
    """Makes the last mask of val anew."""
    return lambda root: save(root / "masks/val/1.png", values, mode)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (mask_of_val(mask_of([0, 1], (6, 8))), r"1\.jpg has 16 x 12 pixels and .*1\.png has 8 x 6; make"),
        (mask_of_val(mask_of([0, 7])), r"1\.png holds value 7 \(96 pixels\), which is neither a class \(0"),
        (mask_of_val(mask_of([0, 256])), r"1\.png holds value 256 \(96 pixels\), which is neither a class"),
        (stretched, r"value 256 .* all values are multiples of 256"),
        (mask_of_val(mask_of([0, 200]), "LA"), r"1\.png has 2 channels \(LA\).*without its alpha channel"),
        (as_rgb, r"0\.png has 3 channels \(RGB\).*2 colours look like those of a palette"),
        (as_jpeg, r"0\.jpg is a JPEG, whose compression changes values; save masks as PNG"),
        (swapped, r"are the folders of images and masks swapped\?"),
        (two_images, r"images/val has two images of one mask, 1\.jpg and 1\.png; take one of them out"),
        (two_masks, r"masks/val has two masks of one image, 1\.png and 1\.tif"),
        (lambda root: (root / "masks/val").rename(root / "masks/v"), r"masks/val is missing.*no split val"),
        (lambda root: (root / "masks/val/1.png").unlink(), r"1 of the 2 images .* have no mask: .* 1\.jpg"),
        (lambda root: [p.unlink() for p in root.glob("*/val/*")], "images/val holds no image files"),
        (all_ignored, "every pixel of all 2 masks of masks/val is ignored"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(
    own: Path, tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(own)
    with pytest.raises(UserError, match=sentence):
        score(own, f"--record={tmp_path / 'a.json'}")
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--k=193"], r"--k 193 is more than the 192 patches of the bank"),
        (["--data.count=1", "--probe=linear"], "train has one image: give one --strengths"),
        (["--probe=kmeans", "--clusters=300"], r"192 patches cannot make 300 clusters"),
        (["--data.split=Train"], r"images/Train is missing.*has the splits train, val"),
        (["--data.test-split=test"], "test is missing"),
    ],
)
def test_options_that_the_data_do_not_allow(own: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        score(own, *words)


def test_sixteen_bits_one_bit_other_case_and_other_endings_are_read(own: Path) -> None:
    expected = score(own)["metrics"]
    save(own / "masks/val/0.png", mask_of([0, 1]).astype(np.uint16))
    save(own / "masks/train/1.png", mask_of([0, 1]).astype(bool))
    (own / "masks/val/1.png").rename(own / "masks/val/1.PNG")
    (own / "images/val/1.jpg").rename(own / "images/val/1.JPG")
    (own / "images").rename(own / "Images")
    (own / "masks").rename(own / "Masks")
    assert score(own)["metrics"] == expected


def test_one_class_and_a_class_without_pixels(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "classes.txt").write_text("sea\nsand\nice\n")
    metrics = score(own)["metrics"]
    assert {name for name in metrics if name.startswith("knn/k=3/iou/")} == {
        "knn/k=3/iou/sea",
        "knn/k=3/iou/sand",
    }
    assert "has no pixel of 1 of its 3 classes (ice)" in capsys.readouterr().err
    for path in own.glob("masks/*/*"):
        save(path, mask_of([1]))
    metrics = score(own, "--probe", "knn", "kmeans", "--restarts=1")["metrics"]
    assert metrics["knn/k=3/miou"] == metrics["knn/k=3/iou/sand"] == 100
    with pytest.raises(UserError, match="all are of 'sand': leave linear out of --probe"):
        score(own, "--probe=linear")


@pytest.mark.parametrize("words", [[], ["--resize=shorter"], ["--resize=shorter", "--window=16"]])
def test_one_pixel_and_a_strip_of_one_to_two_hundred(own: Path, words: list[str]) -> None:
    for number, size in enumerate([(1, 1), (2, 400)]):
        write_image(own / f"images/val/{number}.jpg", number, size)
        write_mask(own / f"masks/val/{number}.png", mask_of([0, 1], size))
    metrics = score(own, *words)["metrics"]
    assert 0 < metrics["knn/k=3/miou"] <= metrics["ceiling/miou"]


def test_the_split_that_is_fitted_is_no_test(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = score(own, "--data.test-split=train")["protocol"]
    assert protocol["image_remarks"] == [SAME_IMAGES]
    assert SAME_IMAGES in capsys.readouterr().err
    assert "image_remarks" not in score(own)["protocol"]
