"""Values of masks as they stand in the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.mask_layouts import mask_of, write_mask

from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.errors import UserError


def write_grey_png(path: Path, values: np.ndarray, depth: int) -> None:
    """A grey PNG of 1, 2 or 4 bits, which Pillow cannot write: rows of packed values, without a filter."""
    height, width = values.shape
    bits = np.unpackbits(values[..., None], axis=2)[..., 8 - depth :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.mark.parametrize("palette", [True, False])
def test_palette_and_grey_are_indices(tmp_path: Path, palette: bool):
    values = mask_of([0, 3, 200, 255])
    write_mask(tmp_path / "m.png", values, palette)
    read = read_mask(str(tmp_path / "m.png"))
    assert read.dtype == np.uint8 and np.array_equal(read, values)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits_are_indices(tmp_path: Path, bits: int):
    values = mask_of(list(range(2**bits)))
    image = Image.fromarray(values)
    image.putpalette(list(range(255, 255 - 3 * 2**bits, -1)))
    image.save(tmp_path / "m.png", bits=bits)
    assert np.array_equal(read_mask(str(tmp_path / "m.png")), values)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_values_of_few_bits_are_not_stretched(tmp_path: Path, depth: int):
    values = mask_of(list(range(2**depth)))
    write_grey_png(tmp_path / "m.png", values, depth)
    assert np.array_equal(read_mask(str(tmp_path / "m.png")), values)


def test_sixteen_bits_are_kept(tmp_path: Path):
    values = mask_of([0, 300, 65535])
    write_mask(tmp_path / "m.png", values)
    read = read_mask(str(tmp_path / "m.png"))
    assert read.dtype == np.uint16 and np.array_equal(read, values)


def test_colours_are_refused_and_named_as_a_palette(tmp_path: Path):
    write_mask(tmp_path / "p.png", mask_of([0, 1, 2]), palette=True)
    Image.open(tmp_path / "p.png").convert("RGB").save(tmp_path / "m.png")
    with pytest.raises(
        UserError, match=r"m\.png has 3 channels .*3 colours look like those of a palette.*class"
    ):
        read_mask(str(tmp_path / "m.png"))


def test_photographs_are_refused(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="give masks whose pixels are class numbers"):
        read_mask(str(tmp_path / "m.png"))


def test_jpegs_are_refused(tmp_path: Path):
    Image.fromarray(mask_of([0, 1])).save(tmp_path / "m.jpg")
    with pytest.raises(UserError, match="JPEG, whose compression changes values"):
        read_mask(str(tmp_path / "m.jpg"))


@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.zeros((4, 4), np.float32), "floating-point numbers"),
        (np.zeros((4, 4, 2), np.uint8), "without its alpha channel"),
        (np.zeros((4, 4, 4), np.uint8), "4 channels .*one colour looks like that of a palette"),
    ],
)
def test_other_kinds_of_images_are_refused(tmp_path: Path, pixels: np.ndarray, message: str):
    Image.fromarray(pixels).save(tmp_path / "m.tif")
    with pytest.raises(UserError, match=message):
        read_mask(str(tmp_path / "m.tif"))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"cannot read the mask .*m\.png: the file cannot be opened \(No such file"
    ):
        read_mask(str(tmp_path / "m.png"))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_damaged_files_are_named(tmp_path: Path, content: bytes | None):
    write_mask(tmp_path / "m.png", np.random.default_rng(0).integers(0, 9, (50, 50), dtype=np.uint8))
    whole = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"cannot read the mask .*m\.png"):
        read_mask(str(tmp_path / "m.png"))
