"""Pictures with transparent pixels: on a background, as viewers show them.

Transparency is an alpha channel, an entry of a palette, or one colour that counts as invisible (the chunk
tRNS of a PNG, the transparent index of a GIF).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from siamtransfer.data.pixel_form import BACKGROUNDS, Colour

OPAQUE = 255
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_ALPHA_MODES = ("LA", "PA", "RGBA", *_PREMULTIPLIED)


def has_transparency(image: Image.Image) -> bool:
    """Whether a picture may have transparent pixels, by its header."""
    mode, palette = image.mode, image.palette
    in_palette = mode == "P" and palette is not None and palette.mode.endswith("A")
    return mode in _ALPHA_MODES or "transparency" in image.info or in_palette


def is_opaque(image: Image.Image) -> bool:
    """Whether no pixel of a picture is transparent; decodes it."""
    return _with_alpha(image).getchannel("A").getextrema() == (OPAQUE, OPAQUE)


def flatten(image: Image.Image, background: Colour) -> np.ndarray:
    """uint8[H,W,3] of a picture with transparency on a background, as Pillow's alpha_composite has it."""
    image = _with_alpha(image)
    if image.getchannel("A").getextrema() == (OPAQUE, OPAQUE):
        return np.array(image.convert("RGB"))
    below = Image.new("RGBA", image.size, (*background, OPAQUE))
    return np.array(Image.alpha_composite(below, image).convert("RGB"))


def flatten_values(colours: np.ndarray, alpha: np.ndarray, background: Colour) -> np.ndarray:
    """The same of uint8[H,W,1] or uint8[H,W,3] and uint8[H,W], which come from a file of more than eight
    bits."""
    rgb = np.broadcast_to(colours, (*colours.shape[:2], 3))
    return flatten(Image.fromarray(np.dstack([rgb, alpha])), background)


def lost_on(image: Image.Image, pixels: np.ndarray, background: Colour) -> str | None:
    """The background that would show a picture which is one colour on this one, as a white drawing on white;
    None where `pixels`, uint8[H,W,3], show something, or where nothing of the picture is visible."""
    first = pixels[0, 0]
    if tuple(first.tolist()) != background or (pixels != first).any():
        return None
    other = "black" if background != BACKGROUNDS["black"] else "white"
    return other if (flatten(image, BACKGROUNDS[other]) != BACKGROUNDS[other]).any() else None


def straight(image: Image.Image) -> Image.Image:
    """The picture with colours that are not multiplied by alpha."""
    return image.convert(_PREMULTIPLIED[image.mode]) if image.mode in _PREMULTIPLIED else image


def _with_alpha(image: Image.Image) -> Image.Image:
    return straight(image).convert("RGBA")
