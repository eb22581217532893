"""Views of images of other than three channels: which operation changes which channels, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.data.imageset import ArrayImages
from siamtransfer.data.readers import ReplacingReader
from siamtransfer.utils.errors import UserError
from siamtransfer.views.augment import augment, change_contrast
from siamtransfer.views.channels import channel_remark, colours_of, recipe_for
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.crop import centre_crop, crop
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.fused import augment_fused
from siamtransfer.views.preview import top_of, write_preview
from siamtransfer.views.random_params import Column, Grey, Operation, sample_params
from siamtransfer.views.recipes import recipe
from siamtransfer.views.shared_memory import loader_shared_memory
from siamtransfer.views.view_spec import Recipe

SAME = 1e-5
RGB_PLACES = {3: (2, 0, 1), 4: (0, 1, 2), 5: (4, 0, 2), 13: (3, 2, 1)}


def plain(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (0.0,) * channels, (1.0,) * channels


def drawn(
    channels: int, name: str = "byol", count: int = 24, **changes: object
) -> tuple[torch.Tensor, np.ndarray]:
    params = sample_params(recipe(name, **changes), 3, 1, np.arange(count), np.full((count, 2), 50))
    generator = torch.Generator().manual_seed(channels)
    crops = torch.randint(0, 256, (2 * count, channels, 20, 20), generator=generator, dtype=torch.uint8)
    return crops, params.augmentation.reshape(-1, params.augmentation.shape[-1])


@pytest.mark.parametrize("channels", RGB_PLACES)
@pytest.mark.parametrize("name", ["simsiam", "byol", "moco-v1"])
def test_the_colours_become_what_they_become_in_an_image_of_three(channels, name):
    crops, params = drawn(channels, name)
    places = list(RGB_PLACES[channels])
    whole = augment(crops, params, *plain(channels), rgb=places)
    alone = augment(crops[:, places], params, *plain(3))
    assert torch.allclose(whole[:, places], alone, rtol=0, atol=SAME)
    assert (alone - crops[:, places] / 255).abs().max() > 0.3


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_other_channels_do_not_know_of_each_other(channels):
    crops, params = drawn(channels, grey_p=0.0, solarize_p=0.0, jitter=(0.4, 0.4, 0.0, 0.0))
    whole = augment(crops, params, *plain(channels), rgb=())
    for channel in range(channels):
        alone = augment(crops[:, [channel]], params, *plain(1), rgb=())
        assert torch.allclose(whole[:, [channel]], alone, rtol=0, atol=SAME)


def one_view(**columns: float) -> np.ndarray:
    """Parameters of a view that one operation changes."""
    params = np.zeros((1, len(Column) + 6), np.float32)[:, : Column.SOLARIZE + 1]
    params[:, Column.ORDER : Column.ORDER + 4], params[:, Column.SOLARIZE] = -1, 2.0
    for name, value in columns.items():
        if name in Operation.__members__:
            params[:, Column.ORDER] = Operation[name]
            params[:, Column.STRENGTH + Operation[name]] = value
        else:
            params[:, Column[name]] = value
    return params


@pytest.mark.parametrize("paint", [augment, augment_fused])
def test_saturation_hue_grey_and_solarize_change_colours_alone(paint):
    crops = drawn(5)[0][:1]
    places, others = [4, 0, 2], [1, 3]
    for columns in ({"SATURATION": 0.2}, {"HUE": 0.3}, {"GREY": Grey.AFTER_JITTER}, {"SOLARIZE": 0.4}):
        out = paint(crops, one_view(**columns), *plain(5), rgb=places)
        assert torch.equal(out[:, others], crops[:, others] / 255), columns
        assert (out[:, places] - crops[:, places] / 255).abs().max() > 0.1, columns


@pytest.mark.parametrize("paint", [augment, augment_fused])
def test_brightness_contrast_and_blur_change_all_channels(paint):
    crops = drawn(5)[0][:1]
    values = crops / 255
    bright = paint(crops, one_view(BRIGHTNESS=1.5), *plain(5), rgb=(4, 0, 2))
    assert torch.allclose(bright, (values * 1.5).clamp(0, 1), atol=SAME)
    contrast = paint(crops, one_view(CONTRAST=0.5), *plain(5), rgb=(4, 0, 2))
    own = (values * 0.5 + values.mean(dim=(2, 3), keepdim=True) * 0.5)[:, [1, 3]]
    assert torch.allclose(contrast[:, [1, 3]], own, atol=SAME)
    colours = change_contrast(values[:, [4, 0, 2]].clone(), torch.full((1, 1, 1, 1), 0.5))
    assert torch.allclose(contrast[:, [4, 0, 2]], colours, atol=SAME)
    blurred = paint(crops, one_view(SIGMA=2.0), *plain(5), rgb=(4, 0, 2))
    assert (blurred.std(dim=(2, 3)) < 0.4 * values.std(dim=(2, 3))).all()


@pytest.mark.parametrize(("channels", "rgb"), [(1, ()), (2, ()), (3, ()), *RGB_PLACES.items()])
def test_both_paintings_agree(channels, rgb):
    changes = {} if rgb else {"grey_p": 0.0, "solarize_p": 0.0, "jitter": (0.4, 0.4, 0.0, 0.0)}
    for name in ("byol", "moco-v1"):
        crops, params = drawn(channels, name, **changes)
        mean, std = [0.1 * n for n in range(channels)], [0.2 + 0.1 * n for n in range(channels)]
        exact = augment(crops, params, mean, std, rgb=rgb)
        assert torch.allclose(augment_fused(crops, params, mean, std, rgb=rgb), exact, rtol=0, atol=5 * SAME)
        last = augment_fused(crops, params, mean, std, rgb=rgb, channels_last=True, dtype=torch.float64)
        assert last.is_contiguous(memory_format=torch.channels_last) and last.dtype == torch.float64
        assert torch.allclose(last.float(), exact, rtol=0, atol=5 * SAME)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_crops_are_those_of_each_channel_within_a_grey_level(channels):
    image = np.random.default_rng(1).integers(0, 256, (50, 70, channels), np.uint8)
    box = np.array([4, 9, 40, 31])
    for interpolation in ("bilinear", "bicubic"):
        whole = crop(image, box, 17, interpolation, flip=True)
        middle = centre_crop(image, 24, 20, interpolation)
        assert whole.shape == (channels, 17, 17) and middle.shape == (channels, 20, 20)
        for channel in range(channels):
            three = np.repeat(image[..., [channel]], 3, axis=2)
            own = crop(three, box, 17, interpolation, flip=True)[0]
            assert (whole[channel].int() - own.int()).abs().max() <= 1
            own = centre_crop(three, 24, 20, interpolation)[0]
            assert (middle[channel].int() - own.int()).abs().max() <= 1


def cubes(channels: int, count: int = 6) -> ArrayImages:
    pixels = np.random.default_rng(2).integers(0, 256, (count, 40, 44, channels), np.uint8)
    return ArrayImages("cubes", "train", pixels)


def test_a_batch_of_thirteen_channels_goes_through_the_whole_chain(tmp_path: Path):
    images = cubes(13)
    views = recipe_for(ViewsConfig("simsiam", size=16), 13, [3, 2, 1], ((0.4,) * 13, (0.3,) * 13))
    batch = ViewSet(ReplacingReader(images), views, 0, 6).__getitems__([(0, n) for n in range(6)])
    assert [crops.shape for crops in batch.crops] == [(6, 13, 16, 16)] * 2
    for painting in ("exact", "fused"):
        x = augment_batch(batch, views, painting=painting)  # type: ignore[arg-type]
        assert [view.shape for view in x] == [(6, 13, 16, 16)] * 2
    write_preview(tmp_path / "views.png", ViewSet(ReplacingReader(images), views, 0, 6), count=2)
    with Image.open(tmp_path / "views.png") as picture:
        assert "channels 13, red, green and blue are 3 2 1" in picture.info["Description"]
        shown = np.asarray(picture)[top_of(0, 16) : top_of(0, 16) + 16, 2:18]
    assert np.array_equal(shown, centre_crop(images.image(0), 16, 16)[[3, 2, 1]].permute(1, 2, 0).numpy())


def test_random_numbers_do_not_depend_on_the_channels():
    three = recipe("simsiam", size=16)
    four = recipe_for(ViewsConfig("simsiam", size=16), 4, [0, 1, 2], ((0.5,) * 4, (0.5,) * 4))
    sizes = np.full((5, 2), 40)
    a, b = (sample_params(r, 7, 2, np.arange(5), sizes) for r in (three, four))
    assert np.array_equal(a.box, b.box) and np.array_equal(a.augmentation, b.augmentation)


def built(channels: int, rgb: list[int] | None = None, **settings: object) -> Recipe:
    return recipe_for(ViewsConfig(**settings), channels, rgb, plain(channels))  # type: ignore[arg-type]


def test_without_colours_their_operations_are_left_out_and_that_is_said():
    for channels in (1, 4, 13):
        changed = built(channels, recipe="byol")
        for view, old in zip(changed.views, recipe("byol").views, strict=True):
            assert view.jitter == (*old.jitter[:2], 0.0, 0.0) and view.grey_p == view.solarize_p == 0
            assert (view.blur_p, view.scale, view.flip_p) == (old.blur_p, old.scale, old.flip_p)
        remark = channel_remark(ViewsConfig("byol"), changed)
        assert remark is not None and "saturation, hue, grey and solarize are left out" in remark
    coloured = built(4, [2, 1, 0], recipe="byol")
    assert coloured.views == recipe("byol").views and coloured.rgb == (2, 1, 0)
    remark = channel_remark(ViewsConfig("byol"), coloured)
    assert remark is not None and "change the channels 2, 1, 0" in remark and "all 4" in remark


def test_rgb_images_keep_the_recipe_without_a_word():
    for rgb in (None, [0, 1, 2]):
        views = ViewsConfig("dino")
        same = recipe_for(views, 3, rgb, None)
        assert same == views.build() and channel_remark(views, same) is None
        assert not any("channels" in line for line in same.describe())


@pytest.mark.parametrize(
    ("channels", "rgb", "settings", "reason"),
    [
        (4, [0, 1], {}, r"data\.rgb is \[0, 1\], but must be three different channels of the 4"),
        (4, [0, 1, 1], {}, r"data\.rgb"),
        (4, [1, 2, 4], {}, r"data\.rgb"),
        (4, [-1, 2, 3], {}, r"data\.rgb"),
        (1, [0, 1, 2], {}, r"data\.rgb"),
        (4, None, {"grey_p": 0.2}, r"views\.grey_p asks for an operation on colours"),
        (4, [], {"jitter": [0.4, 0.4, 0.1, 0.0]}, r"views\.jitter asks"),
        (3, [], {"recipe": "byol", "solarize_p": 0.5}, r"views\.solarize_p asks"),
        (4, None, {"per_view": {"1": {"grey_p": 1.0}}}, r"views\.per_view\.1\.grey_p asks"),
        (4, None, {"mean": [0.5] * 3, "std": [0.5] * 3}, r"views\.mean has 3 numbers, and the images have 4"),
        (3, None, {"mean": [0.5] * 4, "std": [0.5] * 4}, r"views\.mean has 4 numbers, and the images have 3"),
        (4, None, {"mean": [0.5] * 4}, r"views\.mean has 4 numbers and views\.std has 3"),
    ],
)
def test_what_does_not_fit_the_channels_is_one_sentence(channels, rgb, settings, reason):
    with pytest.raises(UserError, match=reason):
        built(channels, rgb, **settings)


def test_settings_without_colours_are_taken():
    views = built(4, None, jitter=[0.8, 0.8, 0.0, 0.0], mean=[0.1] * 4, std=[0.2] * 4, grey_p=0.0)
    assert views.views[0].jitter == (0.8, 0.8, 0.0, 0.0) and views.mean == (0.1,) * 4
    assert colours_of(3, []) == () and colours_of(13, None) == () and colours_of(3, None) == (0, 1, 2)


def test_shared_memory_is_that_of_the_channels():
    assert loader_shared_memory([32, 32], 8, 2, channels=12) - 8 * 8 * 10 == 4 * (
        loader_shared_memory([32, 32], 8, 2) - 8 * 8 * 10
    )
