"""PNG files of 16 bits a colour, of which Pillow hands out the upper eight.

Pillow's decoder runs twice over such a file, and unpacks the upper bytes the first time and the lower ones
the second. A grey PNG of 16 bits needs no such thing: Pillow has a mode for it.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG"
_GREY_ALPHA, _RGB, _RGBA = 4, 2, 6  # types of colour in a PNG's header
_CHANNELS = {_GREY_ALPHA: 2, _RGB: 3, _RGBA: 4}
_COLOUR_TYPE, _DEPTH = 25, 24  # positions in the file


def is_deep_png(data: bytes) -> bool:
    """Whether these are the bytes of a PNG of 16 bits with colours or alpha."""
    return (
        data.startswith(PNG_START)
        and len(data) > _COLOUR_TYPE
        and data[_DEPTH] == 16
        and data[_COLOUR_TYPE] in _CHANNELS
    )


def read_deep_png(data: bytes) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """uint16[H,W,C] of such a file, and the colour that counts as transparent where it states one.

    Raises:
        OSError, and whatever else Pillow raises for damaged files.
    """
    channels = _CHANNELS[data[_COLOUR_TYPE]]
    if channels == 2:
        values, key = _unpack(data, "RGBA", "RGBA")  # both bytes of both samples are four bytes
        deep = values.astype(np.uint16)
        return deep[..., 0::2] << 8 | deep[..., 1::2], None
    mode = "RGB" if channels == 3 else "RGBA"
    upper, key = _unpack(data, mode, f"{mode};16B")
    lower, _ = _unpack(data, mode, f"{mode};16L")
    return upper.astype(np.uint16) << 8 | lower, key


def _unpack(data: bytes, mode: str, raw_mode: str) -> tuple[np.ndarray, tuple[int, ...] | None]:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        if image.mode != mode:
            raise OSError(f"a PNG of 16 bits was opened as {image.mode}")
        values, key = np.array(image), image.info.get("transparency")
    return values, key if isinstance(key, tuple) else None
