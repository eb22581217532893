"""Corruptions against the published code that made ImageNet-C, Tiny ImageNet-C and CIFAR-10-C.

golden/robustness/corruptions.npz holds, by side/corruption/severity, every (side / 8)-th pixel of what
make_imagenet_c.py, make_tinyimagenet_c.py and make_cifar_c.py of hendrycks/robustness make of `picture(side)`
after numpy.random.seed(100 + severity); their ImageMagick motion blur was replaced by that of the package
imagecorruptions 1.1.2, its result rounded. NumPy's old generator, which that code calls, stands here in the
place of ours, so the random numbers are the same. Salt and pepper have another source of chance and are
counted instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats
from support.thorough import more

from siamtransfer.evaluation.robustness.corruptions.blur import displace
from siamtransfer.evaluation.robustness.corruptions.corrupt import CORRUPTIONS, corrupt, generator_of
from siamtransfer.evaluation.robustness.corruptions.severities import numbers_of, published_set

GOLDEN = Path(__file__).parents[2] / "golden" / "robustness" / "corruptions.npz"
ROUNDING = 1
"""Grey levels: values that lie on the border between two are rounded down or not."""


def picture(side: int) -> np.ndarray:
    """uint8[side, side, 3]: waves, a disk, a grey corner and a black one."""
    y, x = np.mgrid[:side, :side] / side
    red = 127 + 90 * np.sin(9 * x + 4 * y) + 30 * np.cos(23 * y * x)
    green = 120 + 100 * np.cos(7 * y - 3 * x)
    disk = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09
    blue = 110 + 80 * np.sin(5 * x * y + 2) + 40 * disk
    image, corner = np.stack([red, green, blue], axis=2), side // 8
    image[:corner, :corner] = image[:corner, :corner].mean(axis=2, keepdims=True)
    image[-corner:, :corner] = 0
    return np.uint8(np.clip(image, 0, 255))


class OldGenerator:
    """numpy.random.seed's generator, with the methods that ours has."""

    def __init__(self, seed: int):
        self.state = np.random.RandomState(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.state, name)

    def integers(self, low: int, high: int, size: tuple[int, ...]) -> np.ndarray:
        return self.state.randint(low, high, size=size)


@pytest.mark.parametrize(
    ("side", "severity"),
    [
        *((32, severity) for severity in range(1, 6)),
        *((64, severity) for severity in range(1, 6)),
        (224, 3),
        *(more(224, severity) for severity in (1, 2, 4, 5)),
    ],
)
def test_published_code_makes_the_same(side: int, severity: int) -> None:
    golden, image = np.load(GOLDEN), picture(side)
    step = side // 8
    compared = 0
    for name in CORRUPTIONS:
        if name == "impulse_noise":
            continue
        generator = cast(np.random.Generator, OldGenerator(100 + severity))
        made = corrupt(image, name, severity, generator)
        assert made.dtype == np.uint8 and made.shape == image.shape
        sample = made[step // 2 :: step, step // 2 :: step].astype(int)
        difference = np.abs(sample - golden[f"{side}/{name}/{severity}"])
        assert difference.max() <= ROUNDING, f"{name}: {difference.max()}"
        compared += 1
    assert compared == 16


@pytest.mark.parametrize("severity", [1, 5])
def test_salt_and_pepper_come_as_often_as_stated(severity: int) -> None:
    grey = np.full((224, 224, 3), 127, np.uint8)
    made = corrupt(grey, "impulse_noise", severity, np.random.default_rng(0))
    assert set(np.unique(made)) == {0, 127, 255}
    share = numbers_of("impulse_noise", severity, 224)[0]
    hit, white = int((made != 127).sum()), int((made == 255).sum())
    assert stats.binomtest(hit, made.size, share).pvalue > 1e-3
    assert stats.binomtest(white, hit, 0.5).pvalue > 1e-3


def test_pixels_are_copied_one_after_the_other() -> None:
    """The chains of copies against a plain loop, which takes each pixel as it is by then."""
    generator = np.random.default_rng(0)
    side, reach = 16, 3
    pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    inner = side - 2 * reach
    offsets = generator.integers(-reach, reach, (inner * inner, 2))
    expected, turn = pixels.copy(), iter(offsets)
    for row in range(side - reach, reach, -1):
        for column in range(side - reach, reach, -1):
            right, down = next(turn)
            expected[row, column] = expected[row + down, column + right]
    np.testing.assert_array_equal(displace(pixels, offsets, reach), expected)


def test_chance_belongs_to_the_image_the_corruption_and_the_severity() -> None:
    def drawn(*key: Any) -> float:
        return float(generator_of(*key).uniform())

    first = drawn(3, "fog", 2)
    assert first == drawn(3, "fog", 2)
    others = {drawn(4, "fog", 2), drawn(3, "snow", 2), drawn(3, "fog", 3), drawn(3, "fog", 2, 1)}
    assert len(others) == 4 and first not in others


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_plain_images_stay_in_range(name: str) -> None:
    for value in (0, 255):
        made = corrupt(np.full((24, 24, 3), value, np.uint8), name, 5, generator_of(0, name, 5))
        assert made.shape == (24, 24, 3)
        if name in ("contrast", "gaussian_blur", "defocus_blur", "zoom_blur", "motion_blur", "pixelate"):
            assert (made == value).all()


def test_numbers_are_those_of_the_set_of_nearest_size() -> None:
    sides = {28: "CIFAR-10-C", 32: "CIFAR-10-C", 64: "Tiny ImageNet-C", 96: "Tiny ImageNet-C"}
    sides |= {160: "ImageNet-C", 224: "ImageNet-C", 518: "ImageNet-C"}
    assert {side: published_set(side) for side in sides} == sides
