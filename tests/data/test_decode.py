"""Decoding: every kind of image gives torchvision's pixels or a documented exception, bad ones a reason."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from support.png import png_by_hand
from torchvision.datasets.folder import pil_loader

from siamtransfer.data.decode import decode
from siamtransfer.data.unreadable import UnreadableImage


def photo(height: int = 75, width: int = 101, channels: int = 3) -> Image.Image:
    """A smooth random picture with some noise, as photographs are."""
    dice = np.random.default_rng(height * width)
    coarse = dice.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), dtype=np.uint8)
    smooth = np.stack(
        [np.asarray(Image.fromarray(coarse[..., c]).resize((width, height), 3)) for c in range(channels)], -1
    )
    noisy = (smooth + dice.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(noisy[..., 0] if channels == 1 else noisy)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette_with_transparency() -> bytes:
    return encode(photo().quantize(17), "PNG", transparency=bytes([0, 128] + [255] * 15))


def frames(kind: str, **options: object) -> bytes:
    return encode(photo(), kind, save_all=True, append_images=[photo().rotate(180)], duration=40, **options)


def with_alpha(mode: str) -> Image.Image:
    """A picture whose alpha is a ramp from invisible to opaque."""
    image = photo().convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


EXIF_TURNED = Image.Exif()
EXIF_TURNED[0x0112] = 6  # to be shown turned by 90 degrees

SAME_AS_IMAGE_FOLDER = {
    "jpeg 4:2:0": encode(photo(), "JPEG", quality=90),
    "jpeg 4:2:2": encode(photo(), "JPEG", quality=90, subsampling=1),
    "jpeg 4:4:4": encode(photo(), "JPEG", quality=90, subsampling=0),
    "jpeg 4:4:0": simplejpeg.encode_jpeg(np.asarray(photo()), 90, colorsubsampling="440"),
    "jpeg 4:1:1": simplejpeg.encode_jpeg(np.asarray(photo()), 90, colorsubsampling="411"),
    "jpeg progressive": encode(photo(), "JPEG", progressive=True),
    "jpeg grey": encode(photo(channels=1), "JPEG"),
    "jpeg stored as RGB": encode(photo(), "JPEG", keep_rgb=True),
    "jpeg CMYK": encode(photo().convert("CMYK"), "JPEG"),
    "jpeg of one pixel": encode(photo(1, 1), "JPEG"),
    "jpeg one pixel wide": encode(photo(33, 1), "JPEG"),
    "jpeg with EXIF orientation": encode(photo(), "JPEG", exif=EXIF_TURNED),
    "jpeg with bytes after the end": encode(photo(), "JPEG") + b"\0" * 64,
    "png": encode(photo(), "PNG"),
    "png grey": encode(photo(channels=1), "PNG"),
    "png 1-bit": encode(photo().convert("1"), "PNG"),
    "png palette": encode(photo().quantize(64), "PNG"),
    "png palette with transparency": palette_with_transparency(),
    "png LA": encode(with_alpha("L"), "PNG"),
    "png RGBA": encode(with_alpha("RGB"), "PNG"),
    "png of one pixel": encode(photo(1, 1), "PNG"),
    "webp": encode(photo(), "WEBP"),
    "webp RGBA": encode(with_alpha("RGB"), "WEBP", lossless=True),
    "webp animated": frames("WEBP", lossless=True),
    "bmp": encode(photo(), "BMP"),
    "bmp palette": encode(photo().quantize(200), "BMP"),
    "tiff": encode(photo(), "TIFF"),
    "tiff LZW": encode(photo(), "TIFF", compression="tiff_lzw"),
    "tiff CMYK": encode(photo().convert("CMYK"), "TIFF"),
    "tiff of two pages": frames("TIFF"),
    "gif animated": frames("GIF"),
    "ppm": encode(photo(), "PPM"),
}


@pytest.mark.parametrize("kind", SAME_AS_IMAGE_FOLDER)
def test_pixels_are_those_of_torchvisions_image_folder(kind: str, tmp_path: Path) -> None:
    """Equal to the last bit: simplejpeg runs with the same transform and upsampling as Pillow's decoder."""
    path = tmp_path / "image.of-no-known-ending"
    path.write_bytes(SAME_AS_IMAGE_FOLDER[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(pil_loader(str(path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(path)
    assert found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable
    assert found.shape == expected.shape and found.shape[2] == 3
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(decode(SAME_AS_IMAGE_FOLDER[kind]), expected)


def test_ordinary_jpegs_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(Image, "open", refuse)
    for kind in ("jpeg 4:2:0", "jpeg progressive", "jpeg grey"):
        decode(SAME_AS_IMAGE_FOLDER[kind])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_upper_eight_bits(kind: str) -> None:
    values = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    found = decode(encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))
    assert found.max() > 250 and found.min() == 0  # not clipped to white


def test_big_endian_16_bit_tiff() -> None:
    values = (np.arange(48 * 64).reshape(48, 64) * 21).astype(">u2")
    image = Image.frombytes("I;16B", (64, 48), values.tobytes())
    np.testing.assert_array_equal(decode(encode(image, "TIFF"))[..., 1], values >> 8)


def test_16_bit_rgb_png_keeps_its_upper_eight_bits() -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (5, 7, 3), dtype=np.uint16)
    np.testing.assert_array_equal(decode(png_by_hand(7, 5, 16, 2, values.astype(">u2"))), values >> 8)


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = bytearray(encode(photo(), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def without_a_piece(data: bytes) -> bytes:
    """A JPEG that lacks a part of its picture but has its end marker, as after an interrupted transfer."""
    return data[: len(data) // 2] + data[-2:]


BAD = {
    "empty": (b"", "empty"),
    "text": (b"this is not an image\n" * 40, "is text"),
    "html": (b"<html><body>404 Not Found</body></html>", "is a web page"),
    "zeros": (bytes(5000), "is nothing but zeros"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript drawing"),
    "jpeg start only": (b"\xff\xd8\xff\xe0", "no JPEG, PNG"),
    "truncated jpeg": (encode(photo(), "JPEG")[:-200], "truncated"),
    "jpeg without its end": (encode(photo(), "JPEG")[:-2], "truncated"),
    "truncated progressive jpeg": (encode(photo(), "JPEG", progressive=True)[:-200], "truncated"),
    "truncated CMYK jpeg": (encode(photo().convert("CMYK"), "JPEG")[:-200], "truncated"),
    "jpeg with a piece missing": (without_a_piece(encode(photo(), "JPEG")), "missing"),
    "truncated png": (encode(photo(), "PNG")[:-200], "truncated"),
    "truncated webp": (encode(photo(), "WEBP")[:-20], "cannot be decoded"),
    "truncated bmp": (encode(photo(), "BMP")[:-200], "truncated"),
    "truncated tiff": (encode(photo(), "TIFF")[:-200], "truncated"),
    "truncated gif": (encode(photo(), "GIF")[:-200], "truncated"),
    "png bomb": (png_by_hand(60_000, 60_000, 8, 2, None), "pixels"),
    "png over the limit": (png_by_hand(10_000, 10_000, 8, 2, None), "pixels"),
    "jpeg bomb": (jpeg_claiming(65_000, 65_000), "4,225,000,000 pixels"),
    "jpeg over the limit": (jpeg_claiming(10_000, 10_000), "100,000,000 pixels"),
    "float tiff": (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
    "32-bit tiff": (encode(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "32-bit"),
    "negative tiff": (encode(Image.fromarray(np.full((4, 4), -1, np.int32)), "TIFF"), "32-bit"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named_with_a_reason(kind: str, tmp_path: Path) -> None:
    data, reason = BAD[kind]
    path = tmp_path / f"{kind}.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        decode(path)
    assert caught.value.where == str(path)
    assert reason in caught.value.why
    assert str(path) in str(caught.value) and caught.value.why in str(caught.value)
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_the_size_limit_is_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [encode(photo(), kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 75 * 101)
    for data in files:
        decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 75 * 101 - 1)
    for data in files:
        with pytest.raises(UnreadableImage, match="7,574 pixels allowed"):
            decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for data in files:
        decode(data)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImage, match="it is a folder and no file"):
        decode(tmp_path)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(SAME_AS_IMAGE_FOLDER["jpeg 4:2:0"])
    secret.chmod(0)
    with powerless(), pytest.raises(UnreadableImage, match="Permission denied"):
        decode(secret)


@contextlib.contextmanager
def powerless() -> Iterator[None]:
    """The superuser may read everything, so for a moment we are somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_names_that_are_not_utf8_can_be_printed(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")  # noqa: PTH118 (bytes)
    with open(path, "wb"):  # noqa: PTH123 (bytes)
        pass
    with pytest.raises(UnreadableImage) as caught:
        decode(os.fsdecode(path))
    assert str(caught.value).encode() and caught.value.where.endswith("caf\\xe9.jpg")


@pytest.mark.parametrize(
    "kind", ["jpeg 4:2:0", "jpeg CMYK", "png", "webp", "bmp", "tiff", "gif animated", "ppm"]
)
def test_damage_anywhere_gives_pixels_or_a_reason(kind: str) -> None:
    """Whatever bytes are changed or cut: an image or UnreadableImage, never another exception."""
    dice = random.Random(kind)
    whole = SAME_AS_IMAGE_FOLDER[kind]
    refused = 0
    for turn in range(60):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 12)):
            data[dice.randrange(min(len(data), 300) if turn % 2 else len(data))] = dice.randrange(256)
        try:
            image = decode(bytes(data[: dice.randrange(len(data))] if turn % 3 == 0 else data))
        except UnreadableImage as failure:
            refused += 1
            assert failure.why
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert refused > 5
