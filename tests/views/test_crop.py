"""Cutting: crops, resizes and flips equal torchvision's on tensors bit for bit, PIL's within a level."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from siamtransfer.views.crop import LONGEST, centre_crop, crop
from siamtransfer.views.view_spec import Interpolation

PHOTO = load_sample_images().images[0]  # uint8[427,640,3]
MODES: dict[Interpolation, InterpolationMode] = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
PIL_MODES: dict[Interpolation, InterpolationMode] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def apart(view: torch.Tensor, picture: Image.Image) -> np.ndarray:
    return np.abs(view.numpy().astype(int) - np.asarray(picture).transpose(2, 0, 1).astype(int))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 427, 640), (31, 7, 300, 250), (100, 200, 224, 224), (5, 6, 11, 9)])
def test_cut_equals_torchvision_and_pil(
    mode: Interpolation, flip: bool, box: tuple[int, int, int, int]
) -> None:
    top, left, height, width = box
    ours = crop(PHOTO, np.array(box), 224, mode, flip)
    theirs = tv.resized_crop(planes(PHOTO), top, left, height, width, [224, 224], MODES[mode], antialias=True)
    theirs = tv.horizontal_flip(theirs) if flip else theirs
    assert ours.shape == (3, 224, 224)
    assert ours.dtype == torch.uint8
    assert ours.is_contiguous()
    assert torch.equal(ours, theirs)

    # Values that overshoot black or white are clipped between the two directions, so it matters which comes
    # first: in torch always the horizontal one; Pillow 13 chooses, so it is asked for one at a time.
    picture = Image.fromarray(PHOTO).crop((left, top, left + width, top + height))
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    same_order = picture.resize((224, height), PIL_MODES[mode]).resize((224, 224), PIL_MODES[mode])
    assert apart(ours, same_order).max() <= 1
    own_order = apart(ours, picture.resize((224, 224), PIL_MODES[mode]))
    assert own_order.max() <= (1 if mode == "bilinear" else 10)
    assert own_order.mean() < 0.3


def test_cut_writes_where_it_is_told() -> None:
    crops = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    result = crop(PHOTO, np.array([0, 0, 90, 90]), 16, out=crops[2])
    assert result.data_ptr() == crops[2].data_ptr()
    assert torch.equal(crops[2], crop(PHOTO, np.array([0, 0, 90, 90]), 16))
    assert not crops[[0, 1, 3]].any()


@pytest.mark.parametrize("mode", MODES)
def test_one_pixel_fills_the_view(mode: Interpolation) -> None:
    image = np.array([[[10, 200, 30]]], np.uint8)
    assert torch.equal(crop(image, np.array([0, 0, 1, 1]), 8, mode), planes(image).expand(3, 8, 8))
    assert torch.equal(centre_crop(image, 10, 8, mode), planes(image).expand(3, 8, 8))


def test_grey_images_stay_grey() -> None:
    image = np.repeat(noise(50, 70)[..., :1], 3, axis=2)
    for view in (crop(image, np.array([3, 4, 40, 30]), 24, "bicubic", True), centre_crop(image, 36, 32)):
        assert torch.equal(view[0], view[1])
        assert torch.equal(view[0], view[2])


def test_read_only_images_are_cut_without_a_warning() -> None:
    image = noise(20, 30)
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        views = crop(image, np.array([0, 0, 20, 30]), 8), centre_crop(image, 10, 8)
    image.flags.writeable = True
    assert torch.equal(views[0], crop(image, np.array([0, 0, 20, 30]), 8))
    assert torch.equal(views[1], centre_crop(image, 10, 8))


def test_the_image_is_not_changed_and_not_shared() -> None:
    image = noise(16, 16)
    before = image.copy()
    for view in (crop(image, np.array([0, 0, 16, 16]), 16), centre_crop(image, None, 16)):
        view.zero_()
    assert np.array_equal(image, before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (224, 224), (36, 32), (33, 32)])
@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (300, 301), (256, 256), (50, 71), (9, 30)])
def test_centre_equals_torchvision(
    mode: Interpolation, resize: int, crop: int, shape: tuple[int, int]
) -> None:
    image = noise(*shape)
    theirs = transforms.Compose(
        [transforms.Resize(resize, MODES[mode], antialias=True), transforms.CenterCrop(crop)]
    )
    assert torch.equal(centre_crop(image, resize, crop, mode), theirs(planes(image)))


@pytest.mark.parametrize("shape", [(32, 32), (33, 40), (47, 32), (101, 90)])
def test_centre_without_a_resize_only_crops(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    assert torch.equal(centre_crop(image, None, 32), transforms.CenterCrop(32)(planes(image)))


@pytest.mark.parametrize("shape", [(20, 25), (25, 20), (31, 90), (1, 3)])
def test_an_image_below_the_crop_is_resized_up_to_it(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    theirs = transforms.Compose([transforms.Resize(32, antialias=True), transforms.CenterCrop(32)])
    assert torch.equal(centre_crop(image, None, 32), theirs(planes(image)))
    assert torch.equal(centre_crop(image, 16, 32), theirs(planes(image)))


@pytest.mark.parametrize("transposed", [False, True])
def test_of_a_very_long_image_only_the_middle_is_resized(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resizing 1 x 60,000 pixels to a shorter side of 256 would take 12 GB."""
    image = noise(1, 60_000)
    middle = image[:, 30_000 - LONGEST // 2 : 30_000 + LONGEST // 2]
    if transposed:
        image, middle = image.transpose(1, 0, 2), middle.transpose(1, 0, 2)
    resize = functional.interpolate

    def within_reason(batch: torch.Tensor, size: tuple[int, int], **options: object) -> torch.Tensor:
        assert max(size) <= 256 * LONGEST
        return resize(batch, size=size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "interpolate", within_reason)
    assert torch.equal(centre_crop(image, 256, 224), centre_crop(middle, 256, 224))
