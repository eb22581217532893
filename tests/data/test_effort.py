"""Files that would take a reader minutes or gigabytes are refused after a look at their own bytes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from support import image_bombs as bombs
from support.thorough import more

from siamtransfer.data.decode import decode
from siamtransfer.data.effort import MOST_PACKED, MOST_SCANS, MOST_SEGMENTS, effort_of
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.pnm import LONGEST_HEADER, MOST_COMMENTS
from siamtransfer.data.report.facts import facts_of
from siamtransfer.data.tiff import MOST_PARTS, MOST_TAGS, MOST_TAGS_OF_ALL
from siamtransfer.data.unreadable import UnreadableImage

pytestmark = pytest.mark.fault

MANY = MOST_SEGMENTS + 1
_EXIF = b"\xff\xe1\0\x10Exif\0\0II*\0\x08\0\0\0"
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "comments of a JPEG": (lambda: bombs.jpeg_of_segments(MANY), "10,000 segments before its pixels"),
    "EXIF blocks of a JPEG": (lambda: bombs.jpeg_of_segments(MANY, _EXIF), "10,000 segments before"),
    "fill bytes of a JPEG": (lambda: bombs.jpeg_of_segments(20_000, b"\xff"), "10,000 segments before"),
    "scans of a JPEG": (lambda: bombs.jpeg_of_scans(MOST_SCANS + 1), "more than 100 scans"),
    "texts of a PNG": (lambda: bombs.png(bombs.chunk(b"tEXt", b"k\0v") * MANY), "10,000 chunks that are no"),
    "unknown chunks of a PNG": (
        lambda: bombs.png(bombs.chunk(b"teXt", b"") * MANY),
        "10,000 chunks that are",
    ),
    "pixel chunks of a PNG": (lambda: bombs.png(bombs.chunk(b"IDAT", b"") * (2**20 + 1)), "chunks of pixels"),
    "a packed text in a PNG": (
        lambda: bombs.png(bombs.chunk(b"zTXt", b"k\0\0" + bombs.zeros(2**24))),
        "MAX_",
    ),
    "a packed profile in a PNG": (
        lambda: bombs.png(bombs.chunk(b"iCCP", b"k\0\0" + bombs.zeros(2**24))),
        "MA",
    ),
    "comments of a GIF": (lambda: bombs.gif(b"!\xfe\1c\0" * MANY), "10,000 blocks before its first frame"),
    "parts of a comment of a GIF": (
        lambda: bombs.gif(b"!\xfe" + b"\1c" * MANY + b"\0"),
        "10,000 blocks before",
    ),
    "bytes between blocks of a GIF": (lambda: bombs.gif(bytes(MANY)), "10,000 blocks before its first frame"),
    "runs of a BMP": (lambda: bombs.bmp_of_runs(MOST_PACKED + 2), "run-length encoded pixels"),
    "boxes of a JPEG XL": (lambda: _JXL + b"\0\0\0\x08free" * MANY, "10,000 boxes"),
    "tags of a TIFF": (
        lambda: bombs.tiff(dict.fromkeys(range(1000, 1000 + MOST_TAGS), (4, 1, 0))),
        "4,096",
    ),
    "strips of a TIFF": (lambda: bombs.tiff({273: (4, MOST_PARTS + 1, 8)}), "262,145 strips or tiles"),
    "tiles of a TIFF": (lambda: bombs.tiff({324: (4, 2**31, 8)}), "2,147,483,648 strips or tiles"),
    "a tile of a TIFF": (
        lambda: bombs.tiff({322: (4, 1, 10**5), 323: (4, 1, 10**5)}),
        "10,000,000,000 pixels",
    ),
    "pages of a TIFF": (lambda: bombs.tiff(pages=2**16 + 1), "65,536 pages"),
    "a comment of a PPM": (lambda: b"P6\n#" + b"x" * LONGEST_HEADER + b"\n4 4\n255\n" + bytes(48), "header"),
    "blanks of a PPM": (lambda: b"P6\n" + b" " * LONGEST_HEADER + b"4 4\n255\n" + bytes(48), "header"),
    "comments among digits": (
        lambda: b"P2\n4 4\n255\n" + b"#\n" * (LONGEST_HEADER + MOST_COMMENTS) + b"7 " * 16,
        "10,000 comments",
    ),
}


_HEAVY = {"pages of a TIFF", "pixel chunks of a PNG"}


@pytest.mark.parametrize("name", [more(name) if name in _HEAVY else name for name in BOMBS])
def test_a_bomb_is_unreadable_and_says_why(name: str):
    make, reason = BOMBS[name]
    data = make()
    began = time.process_time()
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, "bomb")
    assert time.process_time() - began < 2
    with pytest.raises(Exception, match=reason):
        facts_of(data, "bomb")


BELOW: dict[str, Callable[[], bytes]] = {
    "comments of a JPEG": lambda: bombs.jpeg_of_segments(2_000),
    "fill bytes of a JPEG": lambda: bombs.jpeg_of_segments(1_000, b"\xff"),
    "texts of a PNG": lambda: bombs.png(bombs.chunk(b"tEXt", b"k\0v") * 5_000),
    "pixel chunks of a PNG": lambda: bombs.png(bombs.chunk(b"IDAT", b"") * 20_000),
    "comments of a GIF": lambda: bombs.gif(b"!\xfe\1c\0" * 3_000),
    "a page of a TIFF that comes again": lambda: bombs.tiff(pages=2).replace(
        bytes(4) + bytes(range(16)), b""
    ),
    "tiles of a TIFF in the other order of bytes": lambda: bombs.tiff({322: (3, 1, 16)}, order=">"),
    "pages of a TIFF": lambda: bombs.tiff(pages=2_000),
    "a comment of a PPM": lambda: b"P6\n#" + b"x" * 60_000 + b"\n4 4\n255\n" + bytes(48),
}


@pytest.mark.parametrize("name", BELOW)
def test_what_is_far_more_than_usual_is_no_bomb(name: str):
    assert effort_of(BELOW[name]()) is None


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        (bombs.jpeg_of_segments(2_000), bombs.jpeg()),
        (bombs.jpeg_of_segments(1_000, b"\xff"), bombs.jpeg()),
        (bombs.png(bombs.chunk(b"tEXt", b"k\0v") * 5_000), bombs.png()),
        (bombs.gif(b"!\xfe\1c\0" * 3_000), bombs.gif()),
        (bombs.tiff(pages=2_000), bombs.tiff()),
    ],
)
def test_such_files_have_the_pixels_of_a_plain_one(odd: bytes, plain: bytes):
    assert np.array_equal(decode(odd), decode(plain))


def test_scans_are_counted_where_they_are_scans():
    """A thumbnail in a segment, a second picture behind the first, and stuffed bytes are none."""
    thumbnail = b"\xff\xe2" + (2 + 400).to_bytes(2, "big") + b"\xff\xda" * 200
    plain = bombs.jpeg(progressive=True)
    assert effort_of(plain[:2] + thumbnail + plain[2:]) is None
    assert effort_of(plain + bombs.jpeg_of_scans(MOST_SCANS + 1)[2:]) is None
    assert effort_of(bombs.jpeg_of_scans(MOST_SCANS)) is None


def test_fill_bytes_among_the_scans_are_passed_over_at_once():
    scans = b"\xff\xda\0\2" * (MOST_SCANS + 1)
    began = time.process_time()
    assert "more than 100 scans" in str(effort_of(bombs.jpeg()[:-2] + b"\xff" * 2**18 + b"\0" + scans))
    assert time.process_time() - began < 5


def test_the_tags_of_pages_that_lie_over_each_other_are_bounded():
    """In 100 kB: 3,000 pages of 4,096 tags each, one every 16 bytes."""
    pages, length = 3000, 2 + MOST_TAGS * 12
    data = bytearray(b"II*\0" + (8).to_bytes(4, "little") + bytes(16 * pages + length + 8))
    for at in range(8, 8 + 16 * pages, 16):
        data[at : at + 2] = MOST_TAGS.to_bytes(2, "little")
        data[at + length : at + length + 4] = (at + 16).to_bytes(4, "little")
    began = time.process_time()
    assert effort_of(bytes(data)) == (
        f"it has more than {MOST_TAGS_OF_ALL:,} tags on all pages, as no camera or program writes"
    )
    assert time.process_time() - began < 5


def test_a_tile_may_be_as_large_as_the_set_allows():
    data = bombs.tiff({322: (4, 1, 20_000), 323: (4, 1, 20_000)})
    assert "400,000,000 pixels" in str(effort_of(data))
    assert effort_of(data, 400_000_000) is None


def test_a_progressive_photo_has_the_scans_that_encoders_write():
    data = bombs.jpeg(600, 800, progressive=True)
    assert 5 < data.count(b"\xff\xda") < MOST_SCANS
    assert decode(data).shape == (600, 800, 3)


def test_a_large_image_that_claims_nothing_is_refused_before_its_pixels():
    """60,000 x 60,000 pixels in each format are refused by the header alone."""
    plain = bombs.jpeg()
    size = plain.index(b"\xff\xc0") + 5
    claims = {
        "jpg": plain[:size] + (60_000).to_bytes(2, "big") * 2 + plain[size + 4 :],
        "png": bombs.png(height=60_000, width=60_000, pixels=b""),
        "tif": bombs.tiff({256: (4, 1, 60_000), 257: (4, 1, 60_000)}),
        "ppm": b"P6\n60000 60000\n255\n",
        "ascii": b"P3\n60000 60000\n255\n1",
        "gif": b"GIF89a" + (60_000).to_bytes(2, "little") * 2 + bombs.gif()[10:],
        "tga": bytes((0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0)) + b"\x60\xea\x60\xea\x18\0" + bytes(50),
        "npy": _npy_header("(60000, 60000, 3)"),
    }
    for name, data in claims.items():
        with pytest.raises(UnreadableImage, match="3,600,000,000 pixels, more than"):
            decode(data, name, PixelForm())


def _npy_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


def test_an_image_with_one_side_is_read():
    content = io.BytesIO()
    Image.new("RGB", (65_535, 1), (1, 2, 3)).save(content, "PNG")
    assert decode(content.getvalue()).shape == (1, 65_535, 3)
