"""Small image files that ask a reader for minutes of work or gigabytes; made by their specifications."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"


def jpeg(height: int = 16, width: int = 16, **options: object) -> bytes:
    """An ordinary JPEG, not of one colour."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 3 % 256
    content = io.BytesIO()
    Image.fromarray(np.repeat(ramp[..., None], 3, 2).astype(np.uint8)).save(content, "JPEG", **options)
    return content.getvalue()


def jpeg_of_segments(count: int, segment: bytes = b"\xff\xfe\0\2") -> bytes:
    """A JPEG with so many comments, or other segments, before its own."""
    plain = jpeg()
    return plain[:2] + segment * count + plain[2:]


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are `count`."""
    plain = jpeg(progressive=True)
    last, end = plain.rindex(b"\xff\xda"), plain.rindex(b"\xff\xd9")
    scans = plain.count(b"\xff\xda")
    return plain[:end] + plain[last:end] * (count - scans) + plain[end:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: bytes = b"", *, height: int = 4, width: int = 4, pixels: bytes | None = None) -> bytes:
    """A PNG of RGB with other chunks before its pixels, and the pixels' compressed bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x20\x40\x60" * width) * height) if pixels is None else pixels
    chunks = (chunk(b"IHDR", header), before, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return PNG_START + b"".join(chunks)


def zeros(count: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(count // len(block))) + packer.flush()


def gif(before: bytes = b"") -> bytes:
    """A GIF of 4 x 4 pixels with blocks before its frame."""
    content = io.BytesIO()
    Image.new("P", (4, 4), 1).save(content, "GIF")
    plain = content.getvalue()
    start = 13 + (3 << ((plain[10] & 7) + 1) if plain[10] & 0x80 else 0)
    return plain[:start] + before + plain[start:]


def tiff(
    changed: dict[int, tuple[int, int, int]] | None = None, *, pages: int = 1, order: str = "<", tail: int = 0
) -> bytes:
    """A grey TIFF of 4 x 4 pixels; `changed` are further tags, or others in their place: type, count, value.

    `tail` bytes of zero follow.
    """
    tags = {256: (4, 1, 4), 257: (4, 1, 4), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    tags |= {273: (4, 1, 0), 278: (4, 1, 4), 279: (4, 1, 16)} | (changed or {})
    size = 2 + 12 * len(tags) + 4
    if 273 not in (changed or {}):
        tags[273] = (4, 1, 8 + pages * size)
    parts = [(b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)]
    for page in range(1, pages + 1):
        parts.append(struct.pack(order + "H", len(tags)))
        for tag, (kind, count, value) in sorted(tags.items()):
            field = struct.pack(order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value]))
            parts.append(struct.pack(order + "HHI", tag, kind, count) + field)
        parts.append(struct.pack(order + "I", 8 + page * size if page < pages else 0))
    return b"".join(parts) + bytes(range(16)) + bytes(tail)


def bmp_of_runs(length: int) -> bytes:
    """A BMP of run-length encoded pixels, one pixel a run."""
    fields = (40, 4, 4, 1, 8, 1, 0, 0, 0, 1, 0)
    head = b"BM" + struct.pack("<IHHI", 100, 0, 0, 58) + struct.pack("<IiiHHIIiiII", *fields)
    return head + bytes(4) + b"\1\1" * (length // 2)
