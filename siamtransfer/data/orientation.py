"""The EXIF orientation of an image file, and pixels turned by it.

Cameras store a photograph as the sensor lay and say in the tag Orientation (Exif 2.32, section 4.6.4) how it
is to be turned. Viewers turn it. The tag stands in the APP1 segment of a JPEG, in the chunk eXIf of a PNG, in
the chunk EXIF of a WebP and among the tags of a TIFF. Blocks that cannot be read, and values that the
standard does not know, turn nothing. XMP is not looked at, for browsers do not look at it either.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from siamtransfer.data.effort import require_bounded
from siamtransfer.data.image_file import open_image
from siamtransfer.data.tiff import tiff_header
from siamtransfer.utils.text import printable

UPRIGHT = 1
"""The orientation of pixels that lie as they are shown."""

ORIENTATION = 0x0112
_SIDEWAYS = range(5, 9)
_INVERSE = {6: 8, 8: 6}
"""Orientations that another one undoes; every other is its own inverse."""

_EXIF_START, _PNG_START = b"Exif\0\0", b"\x89PNG\r\n\x1a\n"
_APP1, _SCAN = 0xE1, 0xDA
_SEGMENT = struct.Struct(">BBH")  # of a JPEG: 0xFF, the marker, and in most segments their length
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_HEAD = 2**20  # bytes of a file in which the parts before its pixels are counted
JPEG_HEAD = 2**18
"""Bytes of a JPEG in which its EXIF block stands: it is one of the first segments, of 64 KiB at most."""


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H,W,...] as it is shown, of pixels that are stored in this orientation; C-contiguous.

    5 to 8 swap height and width.
    """
    if orientation == UPRIGHT:
        return pixels
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H,W,...] as it is stored, of pixels that are shown in this orientation: the inverse of `turn`."""
    return turn(pixels, _INVERSE.get(orientation, orientation))


def is_sideways(orientation: int) -> bool:
    """Whether height and width are swapped."""
    return orientation in _SIDEWAYS


def orientation_of_jpeg(data: bytes) -> int:
    """The orientation that the bytes of a JPEG state; 1 without one."""
    position, last = 2, len(data) - _SEGMENT.size
    while position <= last:
        start, marker, length = _SEGMENT.unpack_from(data, position)
        if start != 0xFF or marker == _SCAN:
            break
        if marker == _APP1 and data.startswith(_EXIF_START, position + 4):
            return orientation_of_exif(data[position + 4 : position + 2 + length])
        if marker == 0xFF:  # the first was a fill byte
            position += 1
        else:
            position += 2 if marker in _WITHOUT_LENGTH else 2 + length
    return UPRIGHT


def orientation_of_exif(block: bytes) -> int:
    """The orientation that an EXIF block states; 1 where it states none or is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = Image.Exif()
            exif.load(block)
            return _known(exif.get(ORIENTATION))
    except Exception:  # Pillow raises errors of many types for damaged blocks
        return UPRIGHT


def orientation_of_picture(image: Image.Image) -> int:
    """The orientation of a file that Pillow opened. That of a TIFF has to be asked for before its pixels are
    loaded, when Pillow turns them and removes the tag; that of others is complete afterwards."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _known(image.tag_v2.get(ORIENTATION))
    block = image.info.get("exif")
    return orientation_of_exif(block) if isinstance(block, bytes) else UPRIGHT


def _known(value: object) -> int:
    return value if isinstance(value, int) and UPRIGHT <= value <= _SIDEWAYS[-1] else UPRIGHT


class StoredSize(NamedTuple):
    """The size of the pixels in a file, and how they are to be turned."""

    height: int
    width: int
    orientation: int

    def size(self, orientation: str) -> tuple[int, int]:
        """Height and width as the images of a set are read: `shown` or `stored`."""
        swapped = orientation == "shown" and is_sideways(self.orientation)
        return (self.width, self.height) if swapped else (self.height, self.width)


def stored_size(path: str | Path, formats: tuple[str, ...]) -> StoredSize:
    """What the header of an image file says.

    Raises:
        UnreadableImage: it cannot be opened, or has more parts than an ordinary file.
        OSError, and whatever else Pillow's readers raise for damaged files.
    """
    where = printable(path)
    with open_image(path, where) as file:
        require_bounded(file.read(_HEAD), where)
        file.seek(0)
        header = tiff_header(file)
        if header is not None:
            return StoredSize(header.size[1], header.size[0], header.orientation)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=formats) as image:
                width, height = image.size
                kind, orientation = image.format, orientation_of_picture(image)
        file.seek(0)
        if kind == "JPEG":
            orientation = orientation_of_jpeg(file.read(JPEG_HEAD))
        elif kind == "PNG":
            orientation = orientation_of_png(file)
        return StoredSize(height, width, orientation)


def orientation_of_png(file: IO[bytes]) -> int:
    """The orientation that a PNG states, before its pixels or behind them; they are passed over."""
    file.seek(len(_PNG_START))
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf":
            return orientation_of_exif(file.read(length))
        if kind == b"IEND":
            break
        file.seek(length + 4, 1)  # its checksum too
    return UPRIGHT
