"""The versions of images: hand cases, what is random in them, and that they depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.thorough import more
from torch import Tensor

from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.evaluation.invariance.transformations import TRANSFORMATIONS, transformed, turned

SIDE = 16
PLACES = np.arange(6)


@pytest.fixture(scope="module")
def crops() -> Tensor:
    """uint8[6, 3, 16, 16]: smooth fields with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SIDE, mode="bilinear")
    noise = torch.rand(6, 3, SIDE, SIDE, generator=generator)
    return (smooth * 200 + noise * 55).to(torch.uint8)


def constant(*colour: int) -> Tensor:
    """uint8[2, 3, 16, 16] of one colour."""
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, SIDE, SIDE)


def differences(first: Tensor, second: Tensor) -> Tensor:
    return (first.int() - second.int()).abs()


def test_every_transformation_has_a_scale_whose_strengths_rise() -> None:
    assert list(TRANSFORMATIONS) == list(SCALES)
    for scale in SCALES.values():
        assert list(scale.strengths) == sorted(set(scale.strengths))
        assert 0 < scale.strengths[0] <= scale.strengths[-1] <= scale.most


@pytest.mark.parametrize("name", SCALES)
def test_strength_0_is_the_image_and_more_moves_pixels_further(name: str, crops: Tensor) -> None:
    assert torch.equal(transformed(crops, name, 0, PLACES), crops)
    moved = [
        float(differences(transformed(crops, name, strength, PLACES), crops).float().mean())
        for strength in SCALES[name].strengths
    ]
    assert moved[0] > 0.5
    if name not in ("rotation", "crop", "zoom_in", "zoom_out"):  # of a random field any other place is as far
        assert moved == sorted(moved)


@pytest.mark.parametrize("name", SCALES)
def test_a_version_depends_on_its_image_and_the_seed_alone(name: str, crops: Tensor) -> None:
    strength = SCALES[name].strengths[-1]
    whole = transformed(crops, name, strength, PLACES)
    order = torch.tensor([4, 0, 5])
    some = transformed(crops[order], name, strength, PLACES[order.numpy()])
    assert int(differences(whole[order], some).max()) <= 1  # of sums over other shapes
    assert torch.equal(whole, transformed(crops, name, strength, PLACES))
    assert crops.dtype == whole.dtype == torch.uint8
    random = {"rotation", "crop", "hue", "brightness", "contrast", "noise", "occlusion"}
    first, other = (transformed(crops, name, SCALES[name].strengths[0], PLACES, seed) for seed in (0, 1))
    assert torch.equal(first, other) == (name not in random)


def test_quarter_turns_move_whole_pixels_and_a_full_turn_none(crops: Tensor) -> None:
    x = crops.float()
    assert torch.equal(turned(x, 90), x.rot90(1, (2, 3)))
    assert torch.equal(turned(x, -180), x.flip(2, 3))
    assert torch.equal(turned(turned(x, 90), -90), x)
    for degrees in (360.0, 720.0 / 2):
        assert torch.equal(transformed(crops, "rotation", degrees, PLACES), crops)
    half = transformed(crops, "rotation", 180, PLACES)
    assert torch.equal(half, crops.flip(2, 3))


@pytest.mark.parametrize("degrees", [30.0, more(10.0), more(44.0), more(100.0), more(-75.0)])
def test_a_turn_goes_counter_clockwise_like_rot90_and_back(degrees: float) -> None:
    line = torch.linspace(-1, 1, 33)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    angle = np.radians(degrees)
    blob = torch.exp(-((rows - 0.1) ** 2 + (columns - 0.5) ** 2) / 0.05)
    # with y upwards the blob is at (0.5, -0.1); its place after the turn:
    x, y = 0.5 * np.cos(angle) + 0.1 * np.sin(angle), 0.5 * np.sin(angle) - 0.1 * np.cos(angle)
    wanted = torch.exp(-((rows + y) ** 2 + (columns - x) ** 2) / 0.05)
    seen = turned(blob[None, None], degrees)[0, 0]
    inside = rows**2 + columns**2 < 1  # the corners show what lies beyond the edge, mirrored
    assert float((seen - wanted)[inside].abs().max()) < 0.05
    assert float((blob - wanted)[inside].abs().max()) > 0.2


def test_mirrors_are_flips_and_undo_themselves(crops: Tensor) -> None:
    assert torch.equal(transformed(crops, "horizontal_mirror", 1, PLACES), crops.flip(3))
    assert torch.equal(transformed(crops, "vertical_mirror", 1, PLACES), crops.flip(2))


def test_colours_of_hand() -> None:
    red = constant(200, 0, 0)
    both = np.arange(2)
    assert transformed(red, "hue", 0.5, both)[:, :, 0, 0].tolist() == [[0, 200, 200]] * 2
    luminance = round(200 * 0.2989)
    assert transformed(red, "grey", 1, both)[:, :, 3, 3].tolist() == [[luminance] * 3] * 2
    muted = constant(120, 100, 100)
    grey = 120 * 0.2989 + 100 * (0.587 + 0.114)
    stronger = [round(2 * value - grey) for value in (120, 100, 100)]
    assert transformed(muted, "saturation", 1, both)[0, :, 0, 0].tolist() == stronger
    ways = {
        int(one) for one in transformed(constant(100, 100, 100), "brightness", 0.2, np.arange(2))[:, 0, 0, 0]
    }
    assert ways <= {80, 120}
    many = transformed(constant(100, 100, 100).repeat(30, 1, 1, 1), "brightness", 0.2, np.arange(60))
    assert {int(value) for value in many[:, 0, 0, 0]} == {80, 120}


@pytest.mark.parametrize(
    "name", ["rotation", "crop", "zoom_in", "zoom_out", "blur", "occlusion", "contrast", "horizontal_mirror"]
)
def test_an_image_of_one_colour_stays(name: str) -> None:
    grey = constant(90, 90, 90)
    for strength in SCALES[name].strengths:
        assert int(differences(transformed(grey, name, strength, np.arange(2)), grey).max()) <= 1


def test_areas_and_scales_of_hand(crops: Tensor) -> None:
    white = constant(255, 255, 255).repeat(3, 1, 1, 1)
    white[:, :, :, 0] = 0  # so that the mean colour is another
    hidden = (transformed(white, "occlusion", 0.25, np.arange(6)) != white).any(dim=1)
    boxes = hidden.flatten(1).sum(dim=1)
    assert set(boxes.tolist()) <= {8 * 8}  # a quarter of the area, whole
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in hidden}) > 1  # at other places
    kept = transformed(crops, "zoom_in", 1, PLACES)
    middle = torch.nn.functional.interpolate(crops[:, :, 4:12, 4:12].float(), size=SIDE, mode="bilinear")
    assert int(differences(kept, middle.round()).max()) <= 1
    small = transformed(crops, "zoom_out", 1, PLACES)
    colour = crops.float().mean(dim=(2, 3)).round()
    assert torch.equal(small[:, :, 0, 0].float(), colour)
    assert torch.equal(small[:, :, :4].amin(dim=(2, 3)), small[:, :, :4].amax(dim=(2, 3)))
    assert float(differences(small[:, :, 4:12, 4:12], small[:, :, :1, :1]).float().mean()) > 5
    cut = transformed(crops, "crop", 0.75, PLACES).float()
    for image, version in zip(crops.float(), cut, strict=True):
        assert version.max() <= image.max() + 1 and version.min() >= image.min() - 1
    places = {
        tuple(image[0].flatten()[:3].tolist())
        for image in transformed(crops[:1].repeat(6, 1, 1, 1), "crop", 0.75, PLACES)
    }
    assert len(places) > 2  # one image is cut at several places


def test_the_noise_has_the_stated_deviation_and_other_numbers_for_each_image() -> None:
    grey = constant(128, 128, 128).repeat(8, 1, 1, 1)
    noisy = transformed(grey, "noise", 0.1, np.arange(16)).float() / 255
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.05)
    assert float(noisy.mean()) == pytest.approx(128 / 255, abs=0.005)
    assert len({tuple(image.flatten()[:8].tolist()) for image in noisy}) == 16
    twice = transformed(grey, "noise", 0.05, np.arange(16)).float() / 255
    first, second = ((each - 128 / 255).flatten() for each in (noisy, twice))
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) > 0.99  # the same noise, half as strong


def test_a_blur_of_hand() -> None:
    point = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    point[:, :, 16, 16] = 255
    # a deviation of 2 pixels: the middle of a Gaussian has 1 / (2 pi 4) of the mass
    blurred = transformed(point, "blur", 100 * 2 / 33, np.arange(1)).float()
    assert float(blurred[0, 0, 16, 16]) == pytest.approx(255 / (2 * np.pi * 4), rel=0.15)
    assert torch.equal(blurred, blurred.flip(3)) and torch.equal(blurred, blurred.mT)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_keep_their_number(channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    crops = torch.randint(0, 256, (3, channels, 12, 12), dtype=torch.uint8, generator=generator)
    for name, scale in SCALES.items():
        if not scale.colours:
            assert transformed(crops, name, scale.strengths[-1], np.arange(3)).shape == crops.shape
