"""PBM, PGM and PPM files in the form that Pillow reads at once.

Pillow reads a file of decimal digits, and one whose largest value is neither 255 nor 65535, number by number:
half a minute for a photo. Here such a file becomes the binary one of the same picture, with the numbers that
Pillow's own readers make of it.
"""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

LONGEST_HEADER = 2**16
"""Bytes, comments among them, before the pixels."""

MOST_DIGITS = 2**27
"""Bytes of pixels in decimal digits: 30 million numbers of three digits, and one of each pixel's colours."""

MOST_COMMENTS = 10_000
"""Comments between such numbers."""

_STARTS = tuple(b"P%d" % number for number in range(1, 7))
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
_NO_NUMBER = re.compile(rb"[^0-9 \t\n\v\f\r]")
_BLANKS = b" \t\n\v\f\r"


class _Header(NamedTuple):
    """What stands before the pixels: the mode and the reader that Pillow has for them, width and height,
    where they begin, and the value that is white (0 of a file of bits)."""

    mode: str
    reader: str
    size: tuple[int, int]
    offset: int
    white: int


def effort_of_pnm(data: bytes) -> str | None:
    """Why a file takes more work than any ordinary one, or None."""
    if not data.startswith(_STARTS) or len(data) <= LONGEST_HEADER:
        return None
    try:
        header = _header_of(data)
    except Image.DecompressionBombError:
        return None  # which says more
    except Exception:  # Pillow raises errors of many types for damaged files
        return f"its header is damaged, or longer than {LONGEST_HEADER:,} bytes"
    if header.reader != "ppm_plain":
        return None
    digits = len(data) - header.offset
    if digits > MOST_DIGITS:
        return f"it has {digits:,} bytes of decimal digits, more than {MOST_DIGITS:,}: save it as PNG"
    if data.count(b"#", header.offset) > MOST_COMMENTS:
        return f"it has more than {MOST_COMMENTS:,} comments among its pixels: save it as PNG"
    return None


def quick_pnm(data: bytes) -> bytes:
    """A file of the same picture that Pillow reads at once; any other file as it is.

    Raises:
        ValueError: it is damaged or a part of it is missing.
        Image.DecompressionBombWarning, Image.DecompressionBombError: as Pillow's warnings are set.
    """
    if not data.startswith(_STARTS):
        return data
    try:
        header = _header_of(data)
    except UnidentifiedImageError:
        return data
    if header.reader == "raw":
        return data
    width, height = header.size
    size = b"%d %d" % header.size
    if header.mode == "1":
        bits = _bits(data, header.offset, width * height).reshape(height, width)
        return b"P4 %s\n%s" % (size, np.packbits(bits, axis=1).tobytes())
    count = width * height * (3 if header.mode == "RGB" else 1)
    read = _numbers if header.reader == "ppm_plain" else _samples
    most = 65535 if header.mode == "I" else 255
    shades = np.minimum(np.rint(np.arange(65536) / header.white * most), most)
    shown = shades.astype(">u2" if header.mode == "I" else np.uint8)[read(data, header, count)]
    return b"%s %s %d\n%s" % (b"P6" if header.mode == "RGB" else b"P5", size, most, shown.tobytes())


def _header_of(data: bytes) -> _Header:
    """Raises whatever Pillow does."""
    with Image.open(io.BytesIO(data[:LONGEST_HEADER]), formats=("PPM",)) as image:
        tile = image.tile[0]
        white = int(tile.args[-1]) if isinstance(tile.args, tuple) and tile.codec_name != "raw" else 0
        return _Header(image.mode, tile.codec_name, image.size, tile.offset, white)


def _missing() -> ValueError:
    return ValueError("it is truncated, or not all of its pixels are numbers")


def _bits(data: bytes, offset: int, count: int) -> np.ndarray:
    """uint8[count] of a file of the digits 0 and 1, between which there may be blanks."""
    digits = _COMMENT.sub(b"", data[offset:]).translate(None, _BLANKS)[:count]
    if len(digits) < count:
        raise _missing()
    bits = np.frombuffer(digits, np.uint8) - np.uint8(ord("0"))
    if (bits > 1).any():
        raise ValueError("a pixel is neither 0 nor 1")
    return bits


def _numbers(data: bytes, header: _Header, count: int) -> np.ndarray:
    """int64[count] of a file of decimal digits."""
    if len(data) - header.offset < 2 * count - 1:
        raise _missing()
    text = _COMMENT.sub(b"", data[header.offset :])
    if (other := _NO_NUMBER.search(text)) is not None:  # behind the last pixel there may be anything
        text = text[: other.start()].rstrip(b"0123456789")
    numbers = np.fromstring(text.strip() or b"-1", np.int64, sep=" ")[:count]  # of blanks it makes a 0
    if len(numbers) < count or numbers[0] < 0:
        raise _missing()
    if numbers.max() > header.white:
        raise ValueError(f"a pixel is larger than {header.white}, the value of white")
    return numbers


def _samples(data: bytes, header: _Header, count: int) -> np.ndarray:
    """uint8[count] or uint16[count] of a binary file."""
    kind = np.dtype(np.uint8 if header.white < 256 else ">u2")
    if len(data) - header.offset < count * kind.itemsize:
        raise _missing()
    return np.frombuffer(data, kind, count, header.offset)
