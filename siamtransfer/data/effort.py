"""What a file makes a reader do before its first pixel, counted in its own bytes before any reader sees them.

A reader takes time and memory for every chunk, comment, scan and strip that a file has, and a file of some
megabytes can have millions of them: minutes of work for one small picture. Each kind has a limit here that
is far above what cameras and programs write. Counting passes over the contents, and stops at the limit.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from siamtransfer.data.pnm import effort_of_pnm
from siamtransfer.data.sizes import pixel_limit
from siamtransfer.data.tiff import TIFF_STARTS, effort_of_tiff
from siamtransfer.data.unreadable import UnreadableImage

MOST_SEGMENTS = 10_000
"""Segments and fill bytes of a JPEG before its first scan, chunks of a PNG that are no pixels, blocks of a
GIF before its first frame, boxes of a JPEG XL file. A JPEG with 100 MB of metadata has 1,600."""

MOST_SCANS = 100
"""Scans of a JPEG, each of which goes through all of its pixels; encoders write 10 of a progressive one."""

MOST_DATA_CHUNKS = 2**20
"""Chunks of pixels in a PNG: of 8 KiB each, as libpng writes them, they hold 8 GiB."""

MOST_PACKED = 2**23
"""Bytes of a BMP's run-length encoded pixels, which Pillow unpacks slowly: some seconds."""

_JPEG, _PNG, _JXL = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cJXL "
_SCAN, _END_OF_JPEG = 0xDA, 0xD9
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff])")  # of many fill bytes the last, else a search is quadratic


def require_bounded(data: bytes, where: str, max_pixels: int | None = None) -> None:
    """Refuses a file that would take a reader minutes or gigabytes before its first pixel.

    `data` are its bytes or the first of them, and `max_pixels` the limit of its set.

    Raises:
        UnreadableImage: it has more parts of a kind than any ordinary file.
    """
    reason = effort_of(data, max_pixels)
    if reason is not None:
        raise UnreadableImage(where, reason)


def effort_of(data: bytes, max_pixels: int | None = None) -> str | None:
    """Why a file takes more work than any ordinary one, or None."""
    if data.startswith(TIFF_STARTS):
        return effort_of_tiff(data, pixel_limit(max_pixels))
    known = next((count for start, count in _COUNTS if data.startswith(start)), None)
    return None if known is None else known(data)


def _too_many(what: str, most: int) -> str:
    return f"it has more than {most:,} {what}, as no camera or program writes"


def _effort_of_jpeg(data: bytes) -> str | None:
    position, segments = 2, 0
    while (found := _MARKER.match(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == _SCAN:
            break
        if marker not in _STANDALONE:
            position += int.from_bytes(data[position : position + 2], "big")
        segments += len(found[0]) - 1  # fill bytes are read one by one, too
        if segments > MOST_SEGMENTS:
            return _too_many("segments before its pixels", MOST_SEGMENTS)
    if data.count(b"\xff\xda", position) >= MOST_SCANS and _scans(data, position) > MOST_SCANS:
        return _too_many("scans", MOST_SCANS)
    return None


def _scans(data: bytes, position: int) -> int:
    """The scans of a JPEG whose first one begins at `position`; further ones than MOST_SCANS do not count."""
    scans = 1
    while scans <= MOST_SCANS and (found := _NEXT_MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == _END_OF_JPEG:
            break
        scans += marker == _SCAN
        if marker not in _STANDALONE:
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _effort_of_png(data: bytes) -> str | None:
    position, last, others, pixels = len(_PNG), len(data) - 8, 0, 0
    while position <= last:
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"IDAT", b"fdAT", b"fcTL"):
            pixels += 1
        elif kind == b"IEND":
            break
        else:
            others += 1
        if others > MOST_SEGMENTS:
            return _too_many("chunks that are no pixels", MOST_SEGMENTS)
        if pixels > MOST_DATA_CHUNKS:
            return _too_many("chunks of pixels", MOST_DATA_CHUNKS)
        position += length + 12
    return None


def _effort_of_gif(data: bytes) -> str | None:
    """Up to the first frame; further frames are not read."""
    position, blocks = 13, 0
    if len(data) > 10 and data[10] & 0x80:
        position += 3 << ((data[10] & 7) + 1)
    while position < len(data) and blocks <= MOST_SEGMENTS:
        kind = data[position]
        if kind in b",;":  # a frame, or the end
            return None
        position, blocks = position + 1, blocks + 1
        if kind == ord("!"):
            position += 1
            while blocks <= MOST_SEGMENTS and position < len(data) and (length := data[position]):
                position, blocks = position + 1 + length, blocks + 1
            position += 1
    return _too_many("blocks before its first frame", MOST_SEGMENTS) if blocks > MOST_SEGMENTS else None


def _effort_of_bmp(data: bytes) -> str | None:
    if len(data) < 34:
        return None
    offset, header, packed = (
        struct.unpack_from("<I", data, 10)[0],
        struct.unpack_from("<I", data, 14)[0],
        struct.unpack_from("<I", data, 30)[0],
    )
    if header >= 40 and packed in (1, 2) and len(data) - offset > MOST_PACKED:
        return (
            f"it is a BMP of {len(data) - offset:,} bytes of run-length encoded pixels, and more than "
            f"{MOST_PACKED:,} take too long: save it as PNG"
        )
    return None


def _effort_of_jpeg_xl(data: bytes) -> str | None:
    position, boxes = 0, 0
    while position + 8 <= len(data):
        length, boxes = int.from_bytes(data[position : position + 4], "big"), boxes + 1
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        if length < 8 or data[position + 4 : position + 8] == b"jxlc":
            return None
        if boxes > MOST_SEGMENTS:
            return _too_many("boxes", MOST_SEGMENTS)
        position += length
    return None


_COUNTS: tuple[tuple[bytes, Callable[[bytes], str | None]], ...] = (
    (_JPEG, _effort_of_jpeg),
    (_PNG, _effort_of_png),
    (b"GIF8", _effort_of_gif),
    (b"BM", _effort_of_bmp),
    (_JXL, _effort_of_jpeg_xl),
    (b"P", effort_of_pnm),
)
