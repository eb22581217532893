"""PBM, PGM and PPM files are read as Pillow reads them, and at once."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fuzz import examples
from support.thorough import more

from siamtransfer.data.decode import decode
from siamtransfer.data.pnm import quick_pnm
from siamtransfer.data.unreadable import UnreadableImage

WIDTH, HEIGHT = 7, 3
RNG = np.random.default_rng(0)


def _digits(kind: bytes, white: int, blank: bytes = b" ") -> bytes:
    count = WIDTH * HEIGHT * (3 if kind == b"P3" else 1)
    numbers = RNG.integers(0, white + 1, count).tolist()
    return b"%s\n%d %d\n%d\n" % (kind, WIDTH, HEIGHT, white) + blank.join(b"%d" % n for n in numbers)


def _samples(kind: bytes, white: int) -> bytes:
    count = WIDTH * HEIGHT * (3 if kind == b"P6" else 1)
    values = RNG.integers(0, white + 1, count).astype(np.uint8 if white < 256 else ">u2")
    return b"%s\n# one\n%d %d\n%d\n" % (kind, WIDTH, HEIGHT, white) + values.tobytes()


FILES = {
    **{f"P2 {white}": _digits(b"P2", white) for white in (1, 3, 100, 254, 255, 256, 1000, 65534, 65535)},
    **{f"P3 {white}": _digits(b"P3", white) for white in (1, 7, 254, 255, 4095, 65535)},
    **{f"P5 {white}": _samples(b"P5", white) for white in (1, 15, 254, 255, 256, 4095, 65534, 65535)},
    **{f"P6 {white}": _samples(b"P6", white) for white in (1, 100, 254, 255, 256, 4095, 65535)},
    "P1": b"P1 %d %d " % (WIDTH, HEIGHT) + b"0110101" * HEIGHT,
    "P1 with blanks": b"P1\n%d %d\n" % (WIDTH, HEIGHT) + b"1 0\n1\t0 1 #c\n1 0 " * HEIGHT,
    "P4": b"P4 %d %d " % (WIDTH, HEIGHT) + bytes((0xAA, 0x54, 0xFE)),
    "lines": _digits(b"P2", 255, b"\r\n"),
    "comments": _digits(b"P2", 255, b"# c\n "),
    "more than it needs": _digits(b"P2", 255) + b" 1 2 3",
    "another text behind it": _digits(b"P2", 255) + b" end",
    "samples beyond white": b"P5 2 1 100\n\xff\x10",
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_pillow(name: str):
    data = FILES[name]
    with Image.open(io.BytesIO(data)) as image:
        expected, mode = np.asarray(image), image.mode
    with Image.open(io.BytesIO(quick_pnm(data))) as image:
        assert image.mode == mode
        assert image.tile[0].codec_name == "raw"
        assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P2 2 2 255\n1 2 3", "truncated"),
        (b"P2 2 2 255\n", "truncated"),
        (b"P2 1 1 255\n   ", "truncated"),
        (b"P3 1 1 255\n1 2 x", "not all of its pixels are numbers"),
        (b"P3 1 1 255\n1 2 1.5", "not all of its pixels are numbers"),
        (b"P2 1 1 255\n256", "larger than 255"),
        (b"P2 1 1 255\n-1", "not all"),
        (b"P2 1 1 255\n99999999999999999999999", "larger than 255"),
        (b"P1 2 2\n01 2 1", "neither 0 nor 1"),
        (b"P1 2 2\n011", "truncated"),
        (b"P5 2 2 254\n\1\2\3", "truncated"),
        (b"P6 1 1 1000\n\0\1\0\1\0", "truncated"),
        (b"P5 1 1 65536\n\0", "maxval"),
        (b"P5 1 1 0\n\0", "maxval"),
        (b"P2 1000000000 1 255\n1", "1,000,000,000 pixels"),
    ],
)
@pytest.mark.fault
def test_a_damaged_file_is_unreadable(data: bytes, reason: str):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, "damaged")


@pytest.mark.fault
@pytest.mark.parametrize("side", [300, more(4000)])
def test_a_photo_in_digits_is_read_at_once(side: int):
    """Pillow's own reader takes half a second for 300 x 300, and two minutes for 4,000 x 4,000."""
    began = time.process_time()
    assert decode(b"P3\n%d %d\n255\n" % (side, side) + b"7 " * (3 * side * side)).min() == 7
    assert time.process_time() - began < 10 * (side / 4000) ** 2 + 0.2


@pytest.mark.fault
@given(st.sampled_from(sorted(FILES)), st.data())
@examples(60)
def test_bytes_of_any_kind_are_an_image_or_unreadable(name: str, drawn: st.DataObject):
    data = bytearray(FILES[name])
    for _ in range(drawn.draw(st.integers(1, 4))):
        data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.sampled_from(b"0129# \n\xff-P."))
    del data[drawn.draw(st.integers(1, len(data))) :]
    try:
        assert decode(bytes(data), "odd").dtype == np.uint8
    except UnreadableImage as unreadable:
        assert unreadable.why
