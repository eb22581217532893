"""JPEG XL images, read by imagecodecs (a part of the extra `multichannel`).

How an image is turned is a part of this format, so its pixels are always as viewers show them. Of an
animation the first frame is taken. (ISO/IEC 18181-1, the header of sizes; 18181-2, boxes.)
"""

from __future__ import annotations

import numpy as np

from siamtransfer.data.file_kinds import IMAGECODECS
from siamtransfer.data.sizes import reason_of, require_size
from siamtransfer.data.unreadable import UnreadableImage

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_SIZE_BITS = (9, 13, 18, 30)  # of a side, by two bits before it
_RATIOS = (
    None,
    (1, 1),
    (12, 10),
    (4, 3),
    (3, 2),
    (16, 9),
    (5, 4),
    (2, 1),
)  # of width to height, by three bits


def is_jpeg_xl(data: bytes) -> bool:
    """Whether a file's content is that of a JPEG XL image."""
    return data.startswith((_CODESTREAM, _CONTAINER))


def read_jpeg_xl(data: bytes, where: str, max_pixels: int | None) -> np.ndarray:
    """[H,W,C] of any type; `max_pixels` is the limit of the set.

    Raises:
        UnreadableImage: imagecodecs is not installed, or the file is damaged or too large.
    """
    if not IMAGECODECS.is_installed:
        raise UnreadableImage(where, IMAGECODECS.why("a JPEG XL image"))
    import imagecodecs

    try:
        require_size(size_of_jpeg_xl(data), where, max_pixels)
        values: np.ndarray = imagecodecs.jpegxl_decode(data, index=0)
    except UnreadableImage:
        raise
    except Exception as error:  # imagecodecs raises errors of its own for damaged files
        raise UnreadableImage(where, f"it cannot be decoded ({reason_of(error)})") from error
    return values if values.ndim == 3 else values[..., None]


def size_of_jpeg_xl(data: bytes) -> tuple[int, int]:
    """Height and width of an image as its header states them; raises ValueError where the header is cut."""
    bits = _Bits(_codestream(data))
    small = bits.take(1)
    height = _side(bits, small)
    ratio = _RATIOS[bits.take(3)]
    return height, _side(bits, small) if ratio is None else height * ratio[0] // ratio[1]


def _side(bits: _Bits, small: int) -> int:
    if small:
        return 8 * (bits.take(5) + 1)
    return bits.take(_SIZE_BITS[bits.take(2)]) + 1


def _codestream(data: bytes) -> bytes:
    """The first bytes of the codestream behind its signature."""
    if data.startswith(_CODESTREAM):
        return data[2:16]
    start = 0
    while start + 8 <= len(data):
        length, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if length == 1:  # the length is in the eight bytes that follow
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            body = data[start + head + (4 if kind == b"jxlp" else 0) :][:16]
            if body.startswith(_CODESTREAM):
                return body[2:]
        if length < head:  # the last box, or damage
            break
        start += length
    raise ValueError("it has no codestream")


class _Bits:
    """The bits of a header, the lowest of each byte first."""

    def __init__(self, data: bytes):
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        if count > self.left:
            raise ValueError("its header is cut")
        taken = self.value & ((1 << count) - 1)
        self.value, self.left = self.value >> count, self.left - count
        return taken
