"""Parts of a set with masks, and the pictures of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from siamtransfer.segmentation.chosen_masks import ChosenMasks
from siamtransfer.segmentation.data.scenes import SceneMasks
from siamtransfer.segmentation.pictures import class_colours, lay_over, write_mask_pictures


def test_a_part_has_the_images_that_were_chosen() -> None:
    whole = SceneMasks("train", 64, 6)
    part = ChosenMasks(whole, [4, 1], "two")
    assert (len(part), part.classes, part.ignore, part.describe(0)) == (
        2,
        whole.classes,
        255,
        whole.describe(4),
    )
    assert (part.image(1) == whole.image(1)).all() and (part.mask(0) == whole.mask(4)).all()
    assert part.fingerprint != ChosenMasks(whole, [4, 2], "two").fingerprint
    assert part.fingerprint == ChosenMasks(SceneMasks("train", 64, 6), [4, 1], "other").fingerprint


def test_colours_are_pascal_voc_s() -> None:
    """The first and the last of VOC's 21 classes, and its ignored 255."""
    colours = class_colours(256)
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {number: tuple(colours[number].tolist()) for number in expected} == expected


def test_pictures(tmp_path: Path) -> None:
    image = np.full((8, 10, 3), 100, np.uint8)
    mask = np.zeros((8, 10), np.uint8)
    mask[2:4], mask[4:] = 1, 255
    over = lay_over(image, mask, 255, 2)
    assert over[0, 0].tolist() == [35, 35, 35]  # 100 + 0.65 (0 - 100)
    assert over[2, 0].tolist() == [118, 35, 35]
    assert over[4, 0].tolist() == [201, 201, 201]
    coloured = lay_over(np.full((8, 10, 3), (200, 0, 100), np.uint8), mask, 255, 2)
    assert len(set(coloured[0, 0].tolist())) == 1, "the image's colour is in the picture of the background"
    write_mask_pictures(tmp_path / "a.png", [(image, mask, mask * 0)] * 2, ("ground", "cat"), 255)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 3 * 200 + 4 * 6 and picture.height > 2 * 160
