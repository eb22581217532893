"""From a mask's file to the values that stand in it, or to a sentence that says why not.

A mask is one number a pixel: an index into a palette, or a grey value of 1, 2, 4, 8 or 16 bits. Neither
colours nor grey values are ever looked up or scaled. The W3C's PNG specification (section 11.2.1) has the
types.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from siamtransfer.data.pixel_values import read_pixel_values
from siamtransfer.data.stored_values import refuse_changed_values
from siamtransfer.utils.errors import UserError

_PALETTE_COLOURS = 256
_PNG_DEPTH, _PNG_COLOUR_TYPE, _PNG_GREY = 24, 25, 0
"""Positions of two bytes in a PNG, and the colour type of grey values without alpha."""
_PNG_START = b"\x89PNG\r\n\x1a\n"


def read_mask(path: str, max_pixels: int | None = None) -> np.ndarray:
    """uint8[H,W] or uint16[H,W]: the values of a mask as they stand in the file. `max_pixels` is the limit of
    its set, see `PixelForm`.

    Raises:
        UserError: the file cannot be read or decoded, has several channels, or is of a kind of which the
            values are not surely those that were stored, such as JPEG.
    """
    return read_pixel_values(path, "mask", _values, max_pixels)


def _values(image: Image.Image, data: bytes, where: str) -> np.ndarray:
    refuse_changed_values(image, data, "mask", where)
    if image.mode in ("P", "L", "1"):
        values = np.array(image, dtype=np.uint8)
        return _unscaled(values, image, data)
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image)
        if wide.size and not 0 <= int(wide.min()) <= int(wide.max()) < 2**16:
            raise UserError(f"the mask {where} holds values outside 0 to 65535; save it with 8 or 16 bits")
        return wide.astype(np.uint16)
    raise UserError(_several_channels(image, where))


def _unscaled(values: np.ndarray, image: Image.Image, data: bytes) -> np.ndarray:
    """The values of grey PNGs of 2 or 4 bits, which Pillow stretches to 255."""
    if image.mode == "L" and data.startswith(_PNG_START) and data[_PNG_COLOUR_TYPE] == _PNG_GREY:
        largest = 2 ** data[_PNG_DEPTH] - 1
        if largest < 255:
            return values // np.uint8(255 // largest)
    return values


def _several_channels(image: Image.Image, where: str) -> str:
    """The sentence about an image that is no mask."""
    if image.mode == "F":
        return f"the mask {where} holds floating-point numbers; save the class numbers as 8-bit PNG"
    said = f"the mask {where} has {len(image.getbands())} channels ({image.mode}), not one number a pixel"
    if image.mode == "LA":
        return f"{said}; save it without its alpha channel"
    colours = image.convert("RGB").getcolors(_PALETTE_COLOURS)
    if colours is None:
        return f"{said}; give masks whose pixels are class numbers, as PNG with palette or grey"
    count = f"{len(colours)} colours look like those" if len(colours) > 1 else "one colour looks like that"
    return (
        f"{said}; its {count} of a palette: save it as a PNG with palette or grey in which each colour is "
        "its class number"
    )
