"""The limit of pixels: stated or Pillow's, raised and lowered, in every format, before memory is taken."""

from __future__ import annotations

import io
import struct
import threading
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from siamtransfer.data import open_images
from siamtransfer.data.decode import decode
from siamtransfer.data.pixel_form import SHOWN, PixelForm
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.evaluation.depth.data.depth_files import read_depth
from siamtransfer.segmentation.data.read_mask import read_mask
from siamtransfer.utils.errors import UserError

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000", "TGA", "HEIC")


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(PHOTO).save(buffer)
    else:
        PHOTO.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stated_limit_holds_below_and_above_pillows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, fits = encoded(kind), replace(SHOWN, max_pixels=600)
    expected = decode(data, form=SHOWN)
    np.testing.assert_array_equal(decode(data, form=fits), expected)
    with pytest.raises(
        UnreadableImage, match=r"600 pixels, more than the 599 pixels .*--data\.max-pixels 600"
    ):
        decode(data, form=replace(SHOWN, max_pixels=599))
    for pillows in (400, 100):  # within twice its limit Pillow warns, beyond that it raises an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with pytest.raises(UnreadableImage, match=rf"600 pixels, more than the {pillows} pixels"):
            decode(data, form=SHOWN)
        np.testing.assert_array_equal(decode(data, form=fits), expected)
        with pytest.raises(UnreadableImage, match="more than the 599 pixels"):
            decode(data, form=replace(SHOWN, max_pixels=599))
        assert pillows == Image.MAX_IMAGE_PIXELS


def test_threads_with_and_without_a_raised_limit_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data, raised = encoded("PNG"), replace(SHOWN, max_pixels=600)
    answers: list[bool] = []

    def read(form: PixelForm) -> None:
        for _ in range(60):
            try:
                answers.append(decode(data, form=form).shape == (20, 30, 3) and form is raised)
            except UnreadableImage:
                answers.append(form is SHOWN)

    threads = [threading.Thread(target=read, args=(form,)) for form in (raised, SHOWN, raised, SHOWN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 240
    assert all(answers)
    assert Image.MAX_IMAGE_PIXELS == 100


def bomb(side: int) -> bytes:
    """A PNG that claims side x side pixels, all black."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_a_bomb_takes_no_memory() -> None:
    tracemalloc.start()
    for form in (SHOWN, replace(SHOWN, max_pixels=200_000_000)):
        with pytest.raises(UnreadableImage, match="3,600,000,000 pixels"):
            decode(bomb(60_000), form=form)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_the_limit_is_an_option_of_every_set_of_files_and_no_part_of_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    small, large = (open_images("flat", root=tmp_path, max_pixels=most) for most in (599, 600))
    assert small.fingerprint == large.fingerprint == open_images("flat", root=tmp_path).fingerprint
    assert large.image(0).shape == (20, 30, 3)
    with pytest.raises(UnreadableImage):
        small.image(0)
    with pytest.raises(UserError, match=r"data\.max_pixels is 0"):
        open_images("flat", root=tmp_path, max_pixels=0)
    with pytest.raises(UserError, match=r"data\.max_pixels: fashion-scenes .* does not take it"):
        open_images("fashion-scenes", max_pixels=600)


def test_masks_and_depth_maps_have_the_limit_of_their_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(values).save(tmp_path / "depth.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for read, name in ((read_mask, "mask"), (read_depth, "depth")):
        path = str(tmp_path / f"{name}.png")
        with pytest.raises(UserError, match=rf"{name}\.png: it claims to have 600 pixels, more than the 100"):
            read(path)
        np.testing.assert_array_equal(read(path, 600), values.astype(np.uint8) if name == "mask" else values)
        with pytest.raises(UserError, match="more than the 599 pixels"):
            read(path, 599)
