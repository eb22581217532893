"""From a picture that Pillow has opened to uint8[H,W,C]: transparency, orientation and depth by the rules of
the set, see `PixelForm` and docs/IMAGES.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from siamtransfer.data.bands import (
    remark_on_plain,
    require_channels,
    to_bytes,
    to_three_channels,
    values_of_picture,
)
from siamtransfer.data.deep_png import is_deep_png, read_deep_png
from siamtransfer.data.depth import remark_once
from siamtransfer.data.orientation import UPRIGHT, orientation_of_picture, turn, turn_back
from siamtransfer.data.pixel_form import FULL, RGB, PixelForm
from siamtransfer.data.transparency import flatten, flatten_values, has_transparency, lost_on, straight


def pixels_of_file(image: Image.Image, data: bytes, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W,C] of a file that Pillow has opened, turned as the set says."""
    if is_deep_png(data) and _needs_all_bits(image, form):
        return turned(image, form, lambda: _deep_pixels(data, where, form))
    return turned(image, form, lambda: to_channels(image, where, form))


def turned(image: Image.Image, form: PixelForm, read: Callable[[], np.ndarray]) -> np.ndarray:
    """What `read` makes of a picture that Pillow has opened, turned as the form says."""
    by_pillow = image.format == "TIFF"  # such files Pillow turns when it loads them
    orientation = orientation_of_picture(image) if by_pillow else UPRIGHT
    pixels = read()
    if by_pillow:
        return turn_back(pixels, orientation) if form.orientation == "stored" else pixels
    if form.orientation == "stored":
        return pixels
    image.load()  # the block of a PNG may stand behind its pixels
    return turn(pixels, orientation_of_picture(image))


def to_channels(image: Image.Image, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W,C] of a Pillow image, not turned.

    Raises:
        UnreadableImage, WrongChannels: see `to_rgb`, `values_of_picture` and `to_bytes`.
    """
    if form.channels == 3:
        return to_rgb(image, where, form)
    return to_bytes(values_of_picture(image, where, form), where, form)


def is_scaled(form: PixelForm) -> bool:
    """Whether values of 16 bits become others than their upper eight bits."""
    return form.value_range is not None if form.bit_depth is None else form.bit_depth != FULL


def _needs_all_bits(image: Image.Image, form: PixelForm) -> bool:
    """Whether the upper eight bits of a PNG of 16-bit colours are not enough: to scale them, or to find the
    colour that counts as transparent."""
    keyed = form.channels == 3 and form.background is not None and "transparency" in image.info
    return is_scaled(form) or keyed


def _deep_pixels(data: bytes, where: str, form: PixelForm) -> np.ndarray:
    values, key = read_deep_png(data)
    if form.channels == 3 and key is not None:
        visible = (values != np.array(key, np.uint16)).any(axis=2, keepdims=True)
        values = np.dstack([values, visible * np.uint16(0xFFFF)])
    return channels_of_values(values, where, form)


def channels_of_values(values: np.ndarray, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W,C] of values [H,W,c] of any type: grey or colours, with alpha or without."""
    if form.channels == 3:
        return to_three_channels(values, where, form)
    require_channels(values.shape[2], where, form)
    return to_bytes(values, where, form)


def to_rgb(image: Image.Image, where: str, form: PixelForm = RGB) -> np.ndarray:
    """uint8[H,W,3] of a Pillow image by the rules of `form`, not turned; `where` names it in errors.

    Raises:
        UnreadableImage: the range of its values is not known, or they have more bits than the set.
    """
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        values, key = np.asarray(image), image.info.get("transparency")
        grey = to_bytes(values, where, form)[..., None]
        if form.background is not None and isinstance(key, int):
            return flatten_values(grey, np.where(values == key, 0, 255).astype(np.uint8), form.background)
        return np.repeat(grey, 3, axis=2)
    remark_on_plain(where, form)
    if form.background is None or not has_transparency(image):
        return np.array(straight(image).convert("RGB"))
    pixels = flatten(image, form.background)
    if (other := lost_on(image, pixels, form.background)) is not None:
        remark_once(
            "one colour",
            f"{where} shows nothing on {form.background_name}, for its visible pixels have that colour: "
            f"--data.background {other} shows them; other images may be such, too",
        )
    return pixels
