"""Images of more than eight bits: one depth for a set, found in its files, and none becomes black without a
word."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.png import png_by_hand

from siamtransfer.data import depth, open_dataset, open_images
from siamtransfer.data.decode import decode
from siamtransfer.data.first_look import LOOKED_AT, evenly
from siamtransfer.data.found_depth import MORE_FILES
from siamtransfer.data.from_objects import from_images, to_pixels
from siamtransfer.data.pictures import to_rgb
from siamtransfer.data.readers import ReplacingReader
from siamtransfer.data.unreadable import BeyondFound, UnreadableImage
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("messages")


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
    [(0, 4095, np.uint16, 12), (0, 900, np.uint16, 10), (9000, 16000, np.uint16, 14), (0, 255, np.int32, 8)],
)
def test_the_depth_of_a_set_is_found_and_said(tmp_path, messages, low, high, dtype, bits):
    train, test = open_dataset(write(tmp_path, low, high, dtype))
    expected = ramp(low, high).astype(np.int64) >> (bits - 8)
    for images in (train, test):
        assert images.form.bit_depth == bits and images.form.found == (images is train)
        assert images.image(0)[..., 0].tolist() == expected.tolist()
    assert f"the largest is {high}, so they are read as of {bits} bits" in messages.text
    assert messages.text.count("so they are read as of") == 1, "test is read as train is, without a word"
    assert train.remark is not None and train.remark in messages.text
    stated = open_images("folder", root=tmp_path, bit_depth=bits)
    assert stated.fingerprint == train.fingerprint
    assert stated.fingerprint != open_images("folder", root=tmp_path, bit_depth=16).fingerprint
    old = ramp(low, high).astype(np.int64) >> 8
    assert open_images("folder", root=tmp_path, bit_depth=16).image(0)[..., 0].tolist() == old.tolist()


def test_files_of_8_and_16_bits_come_out_equally_bright(tmp_path):
    for name, values in {
        "8.png": (ramp(0, 1) * 255).astype(np.uint8),
        "12.png": (ramp(0, 1) * 4095).astype(np.uint16),
    }.items():
        Image.fromarray(values).save(tmp_path / name)
    eight, twelve = (
        image.astype(int)
        for image in map(open_images("flat", root=tmp_path).image, (1, 0))  # by their names, 12 comes first
    )
    assert np.abs(eight - twelve).max() <= 1


def test_an_image_beyond_the_depth_that_was_found_says_what_to_state(tmp_path):
    bright = min({*range(300)} - {*evenly(300, LOOKED_AT), *evenly(300, MORE_FILES)})
    for number in range(300):
        top = 60000 if number == bright else 1000
        Image.fromarray(ramp(0, top).astype(np.uint16)).save(tmp_path / f"{number}.png".rjust(7, "0"))
    images = open_images("flat", root=tmp_path)
    assert images.form.bit_depth == 10
    for read in (images.image, ReplacingReader(images)):
        with pytest.raises(BeyondFound, match=r"png .* reach 60000.* 10 bits: say --data\.bit-depth 16"):
            read(bright)
    assert open_images("flat", root=tmp_path, bit_depth=16).image(bright).max() == 60000 >> 8


@pytest.mark.parametrize(("values", "top"), [((0.0, 0.9), 1), ((0.0, 200.0), 255), ((0.0, 0.0), 1)])
@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_the_range_of_floating_point_numbers_is_found(tmp_path, messages, values, top, kind):
    pixels = np.repeat(ramp(*values).astype(np.float32)[..., None], 3, axis=2)
    if kind == "npy":
        np.save(tmp_path / "1.npy", pixels)
    else:
        Image.fromarray(pixels[..., 0]).save(tmp_path / "1.tif")
    images = open_images("flat", root=tmp_path)
    assert images.form.value_range == (0, top)
    assert np.abs(images.image(0) - pixels * (255 / top)).max() <= 0.5001
    assert f"read as of 0 to {top}" in messages.text
    assert images.fingerprint == open_images("flat", root=tmp_path, value_range=[0, top]).fingerprint


@pytest.mark.parametrize(
    ("tops", "reason"),
    [
        ([(-1, 1)], r"0\.tif has floating-point numbers of -1 to 1, .* --data\.value-range LOW HIGH"),
        ([(0, 4000)], "neither from 0 to 1 nor from 0 to 255"),
        ([(0, 0.8), (0, 240)], r"0\.tif .* up to 0\.8 and .*1\.tif up to 240, so it is not clear"),
    ],
)
def test_other_floating_point_numbers_need_a_range(tmp_path, tops, reason):
    for number, (low, high) in enumerate(tops):
        Image.fromarray(ramp(low, high).astype(np.float32)).save(tmp_path / f"{number}.tif")
    with pytest.raises(UserError, match=reason):
        open_images("flat", root=tmp_path)
    low, high = tops[0]
    images = open_images("flat", root=tmp_path, value_range=[low, high])
    assert images.image(0).min() == 0 and images.image(0).max() == 255


def test_a_floating_point_image_that_does_not_fit_is_refused(tmp_path):
    for number, top in enumerate([0.5, 0.9, 0.7]):
        Image.fromarray(ramp(0, top).astype(np.float32)).save(tmp_path / f"{number}.tif")
    images = open_images("flat", root=tmp_path)
    Image.fromarray(ramp(-3, 0.5).astype(np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(BeyondFound, match=r"1\.tif has values of -3 to 0\.5.*--data\.value-range LOW HIGH"):
        images.image(1)
    hole = ramp(0, 1).astype(np.float32)
    hole[2, 3] = np.nan
    Image.fromarray(hole).save(tmp_path / "1.tif")
    with pytest.raises(UnreadableImage, match="not all finite"):
        images.image(1)


def png_with_significant_bits(values: np.ndarray, bits: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    data, body = out.getvalue(), b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]  # behind the header


@pytest.mark.parametrize(("high", "bits"), [(900, 12), (60000, None)])
def test_bits_that_a_png_states_are_those_of_the_set_where_its_values_fit(tmp_path, high, bits):
    data = png_with_significant_bits(ramp(0, high).astype(np.uint16), 12)
    (tmp_path / "a.png").write_bytes(data)
    assert open_images("flat", root=tmp_path).form.bit_depth == bits


def test_bits_that_a_tiff_states_are_those_of_the_set(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = ramp(0, 900).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(281, "H", 1, 4095, True)])
    assert open_images("flat", root=tmp_path).form.bit_depth == 12


def test_sixteen_bit_colours_of_a_png_are_scaled_as_grey_is(tmp_path):
    colours = np.stack([ramp(0, 4095), ramp(4095, 0), ramp(9, 2000)], -1).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_by_hand(8, 8, 16, 2, colours.astype(">u2")))
    images = open_images("flat", root=tmp_path)
    assert images.form.bit_depth == 12
    np.testing.assert_array_equal(images.image(0), colours >> 4)
    np.testing.assert_array_equal(
        open_images("flat", root=tmp_path, value_range=[0, 2000]).image(0),
        np.rint(np.clip(colours / 2000, 0, 1) * 255),
    )


def test_narrow_values_are_remarked_with_the_range_that_spreads_them(tmp_path, messages):
    images = open_images("flat", root=write(tmp_path, 7000, 7900))
    assert images.form.bit_depth == 14
    assert "have values of 7000 to 7900 and become at most 15 of 256 grey levels" in messages.text
    assert "say --data.value-range 7000 7900, which spreads these values" in messages.text
    assert np.ptp(open_images("flat", root=tmp_path, value_range=[7000, 7900]).image(0)) == 255


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (30000, 50000)])
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


def test_of_several_ranks_the_first_remarks_on_a_set(messages, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    depth.remark_on_set("kind", "what all ranks find")
    assert messages.text == ""
    depth.remark_once("kind", "the same of an image")  # the set has had its remark
    assert messages.text == ""
    depth.remark_once("other", "what one rank finds")
    monkeypatch.setenv("RANK", "0")
    depth.remark_on_set("set", "what all ranks find")
    assert [record.getMessage() for record in messages.records] == [
        "remark: what one rank finds",
        "remark: what all ranks find",
    ]
