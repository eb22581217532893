"""Training images with masks: what scale, crop, flip and colour do to both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from siamtransfer.segmentation.random_crop import (
    CropRecipe,
    distort_colour,
    random_crop,
    resize_mask,
    scaled_size,
)
from siamtransfer.utils.errors import UserError

FILL = np.array([9, 8, 7], np.uint8)
PLAIN = CropRecipe((20, 30), (1.0, 1.0), flip=False)


def pair(height: int = 40, width: int = 50, kind: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red is the number of the row and whose green that of the column; a mask of their sum."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return image, (rows + columns).astype(kind)


def crop(recipe: CropRecipe, seed: int, kind: type = np.uint8, **size: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = pair(**size, kind=kind)
    return random_crop(image, mask, int(np.iinfo(kind).max), FILL, recipe, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("flip", [False, True])
def test_image_and_mask_stay_together(kind: type, flip: bool) -> None:
    corners = set()
    for seed in range(20):
        image, mask = crop(replace(PLAIN, flip=flip), seed, kind)
        assert (image.shape, mask.shape, mask.dtype) == ((20, 30, 3), (20, 30), kind)
        assert (image[..., 0].astype(int) + image[..., 1] == mask).all()
        steps = np.diff(image[0, :, 1].astype(int))
        assert abs(steps).tolist() == [1] * 29
        corners.add((int(image[0, 0, 0]), int(steps[0])))
    assert len({row for row, _ in corners}) > 5
    assert {step for _, step in corners} == ({1, -1} if flip else {1})


def test_the_same_generator_gives_the_same_crop() -> None:
    recipe = CropRecipe((20, 30), colour=True)
    for first, second in zip(crop(recipe, 3), crop(recipe, 3), strict=True):
        assert (first == second).all()
    assert any((a != b).any() for a, b in zip(crop(recipe, 3), crop(recipe, 4), strict=True))


def test_small_images_are_padded_on_the_right_and_below() -> None:
    image, mask = crop(PLAIN, 0, height=10, width=12)
    assert (image[:10, :12, 0].astype(int) + image[:10, :12, 1] == mask[:10, :12]).all()
    outside = np.ones((20, 30), bool)
    outside[:10, :12] = False
    assert (image[outside] == FILL).all()
    assert (mask[outside] == 255).all()


def test_scaled_sizes() -> None:
    assert scaled_size((375, 500), 0, 0) == (375, 500)
    assert scaled_size((375, 500), 0, 0, 0.5) == (188, 250)
    assert scaled_size((375, 500), 512, 2048) == (512, 683)  # mmcv.imrescale of (2048, 512)
    assert scaled_size((100, 1000), 512, 2048) == (205, 2048)  # the long side decides
    assert scaled_size((100, 1000), 512, 2048, 2.0) == (410, 4096)
    assert scaled_size((3, 3), 0, 0, 0.01) == (1, 1)


def test_masks_are_never_mixed() -> None:
    mask = np.array([[0, 200], [255, 7]], np.uint8)
    assert (resize_mask(mask, (4, 6)) == mask.repeat(2, 0).repeat(3, 1)).all()
    assert (resize_mask(mask.repeat(3, 0).repeat(3, 1), (2, 2)) == mask).all()
    assert resize_mask(mask, (2, 2)) is mask


def test_crops_of_one_class_are_drawn_again() -> None:
    image = np.zeros((40, 200, 3), np.uint8)
    mask = np.zeros((40, 200), np.uint8)
    mask[:, 195:] = 1
    recipe = CropRecipe((40, 8), (1.0, 1.0), most_of_one_class=0.75, flip=False)
    generator = np.random.default_rng(0)

    def share(recipe: CropRecipe) -> float:
        crops = [random_crop(image, mask, 255, FILL, recipe, generator)[1] for _ in range(200)]
        return float(np.mean([len(np.unique(found)) == 2 for found in crops]))

    assert share(recipe) > 4 * share(replace(recipe, most_of_one_class=1.0))


def test_crops_without_a_label_are_drawn_again() -> None:
    image, mask = np.zeros((8, 64, 3), np.uint8), np.full((8, 64), 255, np.uint8)
    mask[:, :20] = 3
    recipe, generator = CropRecipe((8, 8), (1.0, 1.0)), np.random.default_rng(0)
    labelled = [(random_crop(image, mask, 255, FILL, recipe, generator)[1] != 255).any() for _ in range(100)]
    assert np.mean(labelled) > 0.9


def test_colour_distortion_moves_what_it_says() -> None:
    """Grey stays grey, for saturation and hue do not move it; half of the images keep their brightness."""
    grey = np.full((4, 4, 3), 128, np.uint8)
    generator = np.random.default_rng(0)
    found = np.array([distort_colour(grey, generator)[0, 0].astype(int) for _ in range(400)])
    assert (found.max(axis=1) - found.min(axis=1)).max() <= 1
    assert 0.15 < (found[:, 0] == 128).mean() < 0.35  # neither brightness nor contrast: a quarter
    assert found.min() >= (128 - 32) // 2 - 1 and found.max() <= (128 + 32) * 1.5
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    turned = np.array([distort_colour(red, generator)[0, 0] for _ in range(100)])
    assert (turned[:, 0] >= turned.max(axis=1)).all(), "a turn of 18 degrees keeps red the largest"
    assert (turned[:, 1:] > 20).any()


@pytest.mark.parametrize(
    "change",
    [
        {"crop": (0, 5)},
        {"scales": (2.0, 1.0)},
        {"scales": (0.0, 1.0)},
        {"long_side": 5},
        {"most_of_one_class": 0},
    ],
)
def test_recipes_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"INPUT\.MASKS\."):
        CropRecipe(**{"crop": (4, 4), **change})  # type: ignore[arg-type]
