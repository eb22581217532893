"""PNG files written chunk by chunk, of kinds that Pillow does not write."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png_by_hand(
    width: int, height: int, depth: int, colour: int, rows: np.ndarray | None, *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG written chunk by chunk; without rows it has no pixels at all, whatever size it claims.

    `extra` are the names and contents of further chunks before the pixels.
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = b"" if rows is None else b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    further = b"".join(chunk(*each) for each in extra)
    body = chunk(b"IHDR", header) + further + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
