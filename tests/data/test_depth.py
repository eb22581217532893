"""Grey images of more than eight bits: one depth for a set, and no image becomes black without a word."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data import depth, open_images
from siamtransfer.data.decode import decode, to_rgb
from siamtransfer.data.from_objects import from_images, to_pixels
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(depth, "_remarked", set())
    monkeypatch.setattr(logging.getLogger("siamtransfer"), "propagate", True)
    caplog.set_level(logging.INFO, logger="siamtransfer")
    return caplog


def ramp(low: int, high: int) -> np.ndarray:
    return np.linspace(low, high, 64).reshape(8, 8)


def write(folder: Path, low: int, high: int, dtype: type = np.uint16, count: int = 3) -> Path:
    ending = "png" if dtype is np.uint16 else "tif"
    for split in ("train", "val"):
        (folder / split / "a").mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(ramp(low, high).astype(dtype)).save(
                folder / split / "a" / f"{index}-{high}.{ending}"
            )
    return folder


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bits"),
    [
        (0, 4095, np.uint16, 12),
        (0, 1023, np.uint16, 10),
        (7000, 8000, np.uint16, 13),
        (0, 255, np.int32, 8),
        (0, 1, np.uint16, 1),
    ],
)
def test_a_set_that_uses_few_bits_is_remarked_with_the_cure(tmp_path, messages, low, high, dtype, bits):
    images = open_images("folder", root=write(tmp_path, low, high, dtype))
    assert f"--data.bit-depth {bits} " in messages.text
    assert "3 of 3 files that were looked at have 16-bit pixels" in messages.text
    assert images.remark is not None and images.remark in messages.text  # type: ignore[attr-defined]
    image = images.image(0)
    open_images("folder", root=tmp_path)
    assert messages.text.count("remark: ") == 1, "neither the image nor the set is remarked again"
    messages.clear()

    deep = open_images("folder", root=tmp_path, bit_depth=bits)
    assert not messages.text
    assert deep.fingerprint != images.fingerprint
    assert np.ptp(deep.image(0)) > 2 * np.ptp(image)
    expected = ramp(low, high).astype(np.int64)
    expected = expected >> (bits - 8) if bits >= 8 else expected << (8 - bits)
    assert deep.image(0)[..., 0].tolist() == expected.tolist()


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (30000, 50000), (5000, 5000), (0, 0)])
def test_images_that_use_their_bits_and_plain_ones_are_not_remarked(tmp_path, messages, low, high):
    images = open_images("folder", root=write(tmp_path, low, high))
    assert images.image(0)[..., 0].tolist() == (ramp(low, high).astype(np.uint16) >> 8).tolist()
    assert not messages.text


def test_the_depth_is_the_sets_and_keeps_the_contrast_between_images(tmp_path):
    write(tmp_path, 0, 4095, count=1)
    write(tmp_path, 0, 1024, count=1)
    images = open_images("flat", root=tmp_path, bit_depth=12)
    assert sorted({int(images.image(index).max()) for index in range(len(images))}) == [64, 255]


def test_values_that_the_depth_does_not_hold_are_refused(tmp_path):
    images = open_images("folder", root=write(tmp_path, 0, 5000), bit_depth=12)
    with pytest.raises(UnreadableImage, match="reach 5000, which 12 bits"):
        images.image(0)


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_impossible_depths_are_one_sentence(tmp_path, bits):
    with pytest.raises(UserError, match="from 1 to 16"):
        open_images("folder", root=write(tmp_path, 0, 9), bit_depth=bits)


def test_sets_of_eight_bits_take_no_depth():
    with pytest.raises(UserError, match="does not take it"):
        open_images("fashion-objects", bit_depth=12)


def test_a_single_image_is_remarked_once_in_a_process(tmp_path, messages):
    path = next(write(tmp_path, 0, 900).rglob("*.png"))
    decode(path)
    decode(path)
    to_rgb(Image.open(path), "an image")
    assert messages.text.count("remark: ") == 1
    assert "0 to 900" in messages.text and str(path) in messages.text
    assert from_images([path], bit_depth=10).image(0).max() == 900 >> 2


def test_values_from_0_to_1_that_were_divided_twice_are_remarked(messages):
    torch = pytest.importorskip("torch")
    to_pixels(torch.rand(3, 4, 4), "an image")
    assert not messages.text
    to_pixels(torch.rand(3, 4, 4) / 255, "an image")
    assert "divided by 255 twice" in messages.text
    with pytest.raises(UserError, match="looks normalised"):
        to_pixels(torch.rand(3, 4, 4) * 255, "an image")
