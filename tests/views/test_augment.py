"""Painting: each operation equals torchvision's on float tensors, the blur PIL's; alone and in any order."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torchvision.transforms.v2 import functional as tv

from siamtransfer.views import augment as photometry
from siamtransfer.views.augment import augment
from siamtransfer.views.random_params import COLUMNS, NEVER, Column, Grey, Operation, sample_params
from siamtransfer.views.recipes import recipe

PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PHOTO = torch.from_numpy(load_sample_images().images[0].transpose(2, 0, 1).copy())
FACTORS = (0.0, 0.35, 0.8, 1.0, 1.2, 1.8)
TURNS = (-0.5, -0.3, -0.04, 0.0, 0.1, 0.25, 0.5)
SAME = 2e-6  # float32 rounding of values from 0 to 1; a grey level is 4e-3


def crops(count: int, size: int = 40) -> Tensor:
    """Noise, parts of a photograph, and flat, grey, black, white and pure-coloured views in turn."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    flat = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 255], [0, 0, 255], [255, 255, 0], [90, 90, 90]]
    for index in range(0, count, 3):
        made[index] = PHOTO[:, 2 * index : 2 * index + size, 4 * index : 4 * index + size]
    for index, colour in zip(range(1, count, 5), itertools.cycle(flat)):
        made[index] = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)
    made[2::6] = made[2::6, :1]
    return made


def nothing(count: int) -> np.ndarray:
    """Numbers by which nothing changes."""
    params = np.zeros((count, COLUMNS), np.float32)
    params[:, Column.ORDER : Column.ORDER + 4] = -1
    params[:, Column.STRENGTH : Column.STRENGTH + 3] = 1
    params[:, Column.SOLARIZE] = NEVER
    return params


def random_params(name: str, count: int, view: int = 0, **overrides: object) -> np.ndarray:
    views = recipe(name, **overrides)  # type: ignore[arg-type]
    return sample_params(views, 3, 1, np.arange(count), np.full((count, 2), 50)).augmentation[:, view]


def torchvision_jitter(x: Tensor, operation: int, strength: float) -> Tensor:
    change = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue][operation]
    return change(x, strength)


def torchvision_chain(crop: Tensor, params: np.ndarray) -> Tensor:
    """One view augmented by torchvision's functions on floats; for the blur, see its own tests."""
    x = crop.float() / 255
    if params[Column.GREY] == Grey.BEFORE_JITTER:
        x = tv.rgb_to_grayscale(x, 3)
    for operation in params[Column.ORDER : Column.ORDER + 4].astype(int):
        if operation >= 0:
            x = torchvision_jitter(x, operation, float(params[Column.STRENGTH + operation]))
    if params[Column.GREY] == Grey.AFTER_JITTER:
        x = tv.rgb_to_grayscale(x, 3)
    if params[Column.SOLARIZE] < NEVER:
        x = tv.solarize(x, float(params[Column.SOLARIZE]))
    return x


@pytest.mark.parametrize("at_once", [1, 5, 64])
@pytest.mark.parametrize("operation", list(Operation))
def test_each_part_of_the_jitter_equals_torchvisions(operation: Operation, at_once: int) -> None:
    strengths = TURNS if operation == Operation.HUE else FACTORS
    views = crops(4 * len(strengths))
    params = nothing(len(views))
    params[:, Column.ORDER + 2] = operation
    params[:, Column.STRENGTH + operation] = np.resize(strengths, len(views))
    ours = augment(views, params, *PLAIN, at_once=at_once)
    for crop, result, row in zip(views, ours, params, strict=True):
        theirs = torchvision_jitter(crop.float() / 255, operation, float(row[Column.STRENGTH + operation]))
        assert torch.allclose(result, theirs, rtol=0, atol=SAME)


def test_all_orders_of_the_jitter_equal_torchvisions() -> None:
    orders = list(itertools.permutations(range(4)))
    views = crops(len(orders))
    params = random_params("simclr", len(orders), jitter_p=1.0, blur_p=0.0)
    params[:, Column.ORDER : Column.ORDER + 4] = orders
    ours = augment(views, params, *PLAIN)
    theirs = torch.stack([torchvision_chain(*pair) for pair in zip(views, params, strict=True)])
    assert torch.allclose(ours, theirs, rtol=0, atol=2 * SAME)
    # The order matters, so the test would notice a wrong one.
    params[:, Column.ORDER : Column.ORDER + 4] = orders[1:] + orders[:1]
    assert (augment(views, params, *PLAIN) - theirs).abs().max() > 0.05


@pytest.mark.parametrize(("name", "view"), [("simsiam", 0), ("moco-v1", 1), ("byol", 1), ("grey", 0)])
def test_whole_recipes_equal_torchvision(name: str, view: int) -> None:
    views = crops(90)
    params = random_params(name, 90, view, blur_p=0.0)
    result = augment(views, params, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    theirs = torch.stack([torchvision_chain(*pair) for pair in zip(views, params, strict=True)])
    theirs = tv.normalize(theirs, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    # A value at the solarize threshold may fall on either side by rounding: none may be off otherwise.
    close = torch.isclose(result, theirs, rtol=0, atol=2e-5)
    assert close.float().mean() > 0.9999
    assert name == "byol" or close.all()


def test_eight_bit_images_differ_by_torchvisions_rounding_only() -> None:
    """torchvision rounds uint8 down after each of the four operations: a few grey levels."""
    views = crops(60)[::3]
    params = random_params("simsiam", 60, jitter_p=1.0, blur_p=0.0)[::3]
    ours = augment(views, params, *PLAIN) * 255
    for crop, result, row in zip(views, ours, params, strict=True):
        for operation in row[Column.ORDER : Column.ORDER + 4].astype(int):
            crop = torchvision_jitter(crop, operation, float(row[Column.STRENGTH + operation]))
        if row[Column.GREY]:
            crop = tv.rgb_to_grayscale(crop, 3)
        difference = (result - crop).abs()
        assert difference.mean() < 3
        assert difference.quantile(0.99) < 6


def test_a_value_on_the_solarize_threshold_is_inverted() -> None:
    params = nothing(1)
    params[:, Column.SOLARIZE] = 1.0
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert torch.equal(augment(white, params, *PLAIN), tv.solarize(white / 255, 1.0))


def test_grey_comes_before_or_after_the_jitter() -> None:
    views = crops(12)
    for place in (Grey.BEFORE_JITTER, Grey.AFTER_JITTER):
        params = nothing(12)
        params[:, Column.GREY] = place
        params[:, Column.ORDER] = Operation.HUE
        params[:, Column.STRENGTH + Operation.HUE] = 0.3
        theirs = torch.stack([torchvision_chain(*pair) for pair in zip(views, params, strict=True)])
        assert torch.allclose(augment(views, params, *PLAIN), theirs, rtol=0, atol=SAME)


def test_solarize_equals_torchvision_and_pil() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for threshold in (0, 1, 127, 128, 200, 255):
        params = nothing(1)
        params[:, Column.SOLARIZE] = (threshold - 0.5) / 255
        result = augment(ramp, params, *PLAIN)[0]
        theirs = tv.solarize(ramp[0] / 255, float(params[0, Column.SOLARIZE]))
        assert torch.allclose(result, theirs, rtol=0, atol=SAME)
        picture = ImageOps.solarize(Image.fromarray(ramp[0].permute(1, 2, 0).numpy()), threshold)
        assert np.array_equal((result * 255).round().numpy(), np.asarray(picture).transpose(2, 0, 1))


# The blur. PIL rounds to whole grey levels after each of its six passes: up to 3 levels at a pixel, and about
# half a level on average (1.04 on noise at sigma 0.1). A sampled Gaussian would be up to 34 levels away.


@pytest.mark.parametrize("size", [1, 7, 64, 65, 150])
def test_blur_equals_pils_up_to_its_rounding(size: int) -> None:
    sigmas = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.41, 1.42, 1.7, 2.0, 3.5)
    views = crops(len(sigmas), size)
    params = nothing(len(sigmas))
    params[:, Column.SIGMA] = sigmas
    ours = augment(views, params, *PLAIN, at_once=4) * 255
    for crop, result, sigma in zip(views, ours, sigmas, strict=True):
        picture = Image.fromarray(crop.permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(sigma))
        difference = np.abs(result.numpy() - np.asarray(picture).transpose(2, 0, 1))
        assert difference.max() < 3
        assert difference.mean() < 1.1


@pytest.mark.parametrize("size", [1, 31, 32, 33, 40, 64, 66, 95, 96, 97, 99, 128, 140, 224])
def test_blur_in_blocks_equals_the_whole_matrix(size: int) -> None:
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    for sigma in (0.3, 1.9, 9.0, 15.0):
        radius = torch.from_numpy(photometry.box_radius(np.array([sigma, sigma / 2], np.float32)))
        radius, reach = radius.view(2, 1, 1, 1), math.ceil(radius[0])
        matrix = photometry._blur_matrix(radius, reach, size)
        ours = photometry.blur(x.clone(), radius, reach)
        assert torch.allclose(ours, matrix @ x @ matrix.mT, rtol=0, atol=SAME)


@pytest.mark.parametrize("sigma", [0.8, 1.2, 1.6, 2.0])
def test_blur_is_near_torchvisions_gaussian_inside(sigma: float) -> None:
    """Three boxes are not quite a Gaussian, and torchvision mirrors edges where PIL repeats them."""
    view = PHOTO[None, :, 40:136, 200:296]
    params = nothing(1)
    params[:, Column.SIGMA] = sigma
    theirs = tv.gaussian_blur(view / 255, [23, 23], [sigma, sigma])
    difference = (augment(view, params, *PLAIN) - theirs)[..., 12:-12, 12:-12].abs() * 255
    assert difference.mean() < 1
    assert difference.max() < 10


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.5, 2.0, 6.0])
def test_three_boxes_have_the_variance_of_the_gaussian(sigma: float) -> None:
    radius = photometry.box_radius(np.array([sigma], np.float32))
    reach = math.ceil(radius[0])
    matrix = photometry._blur_matrix(torch.from_numpy(radius).view(1, 1, 1, 1), reach, 101)[0, 0].double()
    weights, offsets = matrix[50], torch.arange(-50, 51)
    assert (weights * offsets**2).sum().item() == pytest.approx(sigma**2, rel=1e-4)
    assert (matrix.sum(dim=1) - 1).abs().max() < 1e-6
    assert (matrix[50, : 50 - 3 * reach] == 0).all()


# One implementation, grouped differently, on other devices and in other types.


@pytest.mark.parametrize("size", [3, 40, 96])
def test_grouping_changes_nothing_but_rounding(size: int) -> None:
    views, params = crops(33, size), random_params("byol", 33, 1, blur_p=0.5)
    params[:, Column.SOLARIZE] = NEVER  # whose threshold would enlarge a rounding
    alone = torch.cat([augment(views[n : n + 1], params[n : n + 1], *PLAIN) for n in range(33)])
    for at_once in (None, 1, 7, 256):
        assert torch.allclose(augment(views, params, *PLAIN, at_once=at_once), alone, rtol=0, atol=SAME)


def test_untouched_views_are_only_normalised_and_the_crops_stay() -> None:
    views = crops(6)
    before = views.clone()
    result = augment(views, nothing(6), (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    assert torch.equal(result, tv.normalize(views / 255, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]))
    augment(views, random_params("byol", 6), *PLAIN)
    assert torch.equal(views, before)


def test_numbers_stay_as_they_are() -> None:
    params = random_params("byol", 6)
    before = params.copy()
    augment(crops(6), params, *PLAIN)
    assert np.array_equal(params, before)


def test_no_views_are_fine() -> None:
    assert augment(crops(0), nothing(0), *PLAIN).shape == (0, 3, 40, 40)


def test_values_stay_finite_and_in_range() -> None:
    views = crops(64)
    for name in ("simclr", "byol"):
        result = augment(views, random_params(name, 64, 1), *PLAIN)
        assert result.isfinite().all()
        assert result.min() >= -SAME
        assert result.max() <= 1 + SAME


def test_grey_images_stay_grey() -> None:
    views = crops(30)[:, :1].expand(-1, 3, -1, -1).contiguous()
    result = augment(views, random_params("simclr", 30), *PLAIN)
    assert (result - result[:, :1]).abs().max() < SAME


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_type_and_layout_of_the_result(dtype: torch.dtype, channels_last: bool) -> None:
    views, params = crops(9), random_params("simsiam", 9)
    normalisation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = augment(views, params, *normalisation, dtype=dtype, channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=layout)
    assert torch.equal(result.contiguous(), augment(views, params, *normalisation).to(dtype))


def test_autocast_does_not_reach_the_augmentation() -> None:
    views, params = crops(9), random_params("simsiam", 9, blur_p=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = augment(views, params, *PLAIN)
    assert torch.equal(inside, augment(views, params, *PLAIN))


@pytest.mark.parametrize("name", ["byol", "moco-v1"])
def test_nothing_waits_for_a_gpu(name: str) -> None:
    """On fake CUDA tensors a value that the CPU asks for, and a CPU tensor among the operands, are errors."""
    params = np.concatenate([random_params(name, 40, view, size=32) for view in (0, 1)])
    assert (params[:, Column.ORDER] >= 0).any()
    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True):
        warnings.simplefilter("error")
        views = torch.empty(80, 3, 32, 32, dtype=torch.uint8, device="cuda")
        result = augment(views, params, *PLAIN, dtype=torch.bfloat16, channels_last=True)
    assert isinstance(result, FakeTensor)
    assert result.device.type == "cuda"
    assert (result.shape, result.dtype) == ((80, 3, 32, 32), torch.bfloat16)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_without_being_waited_for() -> None:
    views, params = crops(80), random_params("byol", 80, 1, blur_p=0.5)
    params[:, Column.SOLARIZE] = NEVER
    on_device = views.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = augment(on_device, params, *PLAIN)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tolerance = 2e-3 if torch.backends.cuda.matmul.allow_tf32 else 1e-5
    assert torch.allclose(result.cpu(), augment(views, params, *PLAIN), rtol=0, atol=tolerance)


def test_a_sample_of_the_numbers_changes_every_column() -> None:
    """Guards the tests above: their random parameters use every operation."""
    params = np.concatenate([random_params("byol", 90, view) for view in (0, 1)])
    assert len(np.unique(params[:, Column.ORDER])) == 5
    for column in (Column.GREY, Column.SIGMA, Column.SOLARIZE):
        assert len(np.unique(params[:, column])) >= 2
