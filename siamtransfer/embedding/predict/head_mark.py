"""How a file shows that it is a head. This module imports neither torch nor NumPy."""

from __future__ import annotations

import struct
from pathlib import Path

MARK = "siamtransfer_head"
"""The key of the metadata that makes a safetensors file a head; its value is the version."""
_MOST_HEADER = 2**28  # bytes; a text of all labelled paths is in it


def is_head(path: str | Path) -> bool:
    """Whether a file is a head, whole or damaged; looks at its beginning only."""
    try:
        with Path(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return length < _MOST_HEADER and f'"{MARK}"'.encode() in file.read(length)
    except (OSError, struct.error):
        return False
