"""Images of any number of channels: TIFF files with many bands, .npy arrays, RGBA and grey files as they are.

Nothing is converted here: a file has exactly the channels of its set, in the order in which it stores them.
TIFF files are read by tifffile (the extra `multichannel`), for Pillow knows four channels at most and reads
16-bit colours as eight bits. Of a TIFF file the first series counts; pages of one size are its channels.

Values become eight bits, as everywhere (see `PixelForm`): integers up to 16 bits by their upper eight bits or
those of `bit_depth`; floating-point numbers, and integers of a set without a bit depth, linearly from
`value_range`, and values beyond are clipped. Files of eight bits are taken as they are.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.data.depth import depth_for, remark_on_image, remark_once, to_eight_bits
from siamtransfer.data.pixel_form import FULL, PixelForm
from siamtransfer.data.sizes import reason_of, require_size
from siamtransfer.data.tiff import TIFF_STARTS, read_tiff
from siamtransfer.data.transparency import flatten_values
from siamtransfer.data.unreadable import BeyondFound, UnreadableImage, WrongChannels

NPY_START = b"\x93NUMPY"
_CHANNELS_OF_MODE = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBX": 4, "I": 1, "F": 1}
"""Channels of Pillow's modes whose values are those of the file; `I;16…` are one channel, too."""


def is_array_or_tiff(data: bytes) -> bool:
    """Whether a file's content is that of an .npy array or of a TIFF image."""
    return data.startswith((NPY_START, *TIFF_STARTS))


def values_of_array(data: bytes, where: str, form: PixelForm) -> np.ndarray:
    """[H,W,C] of any type from an .npy file or a TIFF file.

    Raises:
        UnreadableImage: it is damaged, or no image.
        WrongChannels: it has another number of channels than the set, or the order of axes is not clear.
    """
    read = _read_npy if data.startswith(NPY_START) else read_tiff
    values, axis = read(data, where, form.max_pixels)
    if values.ndim not in (2, 3) or not values.size:
        raise UnreadableImage(where, f"it is an array of shape {list(values.shape)}, not [H,W,C] or [C,H,W]")
    if values.ndim == 2:
        values, axis = values[..., None], 2
    elif axis is None and form.axes is not None:
        axis = 2 if form.axes == "hwc" else 0
    elif axis is None:
        axis = _channel_axis(values.shape, where, form)
    values = np.moveaxis(values, axis or 0, 2)
    require_channels(values.shape[2], where, form)
    return values


def _channel_axis(shape: tuple[int, ...], where: str, form: PixelForm) -> int:
    """The axis of the channels of an array that does not name it."""
    fitting = [axis for axis in (0, 2) if shape[axis] == form.channels]
    if len(fitting) == 1:
        return fitting[0]
    what = "both axes" if fitting else "neither the first nor the last axis"
    verb = "have" if fitting else "has"
    raise WrongChannels(
        f"{where} is an array of shape {list(shape)}, of which {what} {verb} the {form.channels} entries of "
        f"data.channels: {'say --data.axes hwc or chw' if fitting else 'say --data.channels and --data.axes'}"
    )


def require_channels(channels: int, where: str, form: PixelForm) -> None:
    """Raises WrongChannels where a file has another number of channels than its set."""
    if channels != form.channels:
        raise WrongChannels(
            f"{where} has {channels} channel{'s' * (channels != 1)}, and the images of its set have "
            f"{form.channels}: take it out of the set, or say the number of all in --data.channels"
        )


def values_of_picture(image: Image.Image, where: str, form: PixelForm) -> np.ndarray:
    """[H,W,C] of a file that Pillow opened and that is no TIFF.

    Raises:
        WrongChannels: it has another number of channels, or colours that are none (palette, inks).
    """
    mode = image.mode
    if mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa"):
        raise WrongChannels(
            f"{where} stores a palette, inks or another form of colours (mode {mode}), whose values are not "
            f"those of {form.channels} channels: save it as grey, RGB, RGBA or TIFF"
        )
    channels = 1 if mode.startswith("I;16") else _CHANNELS_OF_MODE.get(mode)
    if channels is None:
        raise UnreadableImage(where, f"its pixels are of Pillow's mode {mode}, which is not known here")
    require_channels(channels, where, form)
    if mode == "1":
        image = image.convert("L")
    values = np.array(image)
    return values if values.ndim == 3 else values[..., None]


def to_three_channels(
    values: np.ndarray, where: str, form: PixelForm, *, premultiplied: bool = False
) -> np.ndarray:
    """uint8[H,W,3] of [H,W,C] of any type, where C is 1 or 3, or one more for alpha.

    Alpha is that of `form.background`, or left out. `premultiplied`: the colours are multiplied by it.

    Raises:
        UnreadableImage: see `to_bytes`.
    """
    pixels = to_bytes(values, where, form)
    if pixels.shape[2] in (1, 3):
        return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    colours, alpha = pixels[..., :-1], pixels[..., -1]
    if premultiplied:
        shares = np.maximum(alpha, 1)[..., None] / 255
        colours = np.minimum(np.rint(colours / shares), 255).astype(np.uint8)
    if form.background is None:
        return np.array(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    return flatten_values(colours, alpha, form.background)


def to_bytes(values: np.ndarray, where: str, form: PixelForm) -> np.ndarray:
    """uint8[...] of values of any type, C-contiguous and writable; see the module.

    Raises:
        UnreadableImage: their range is not stated, they are not finite, or beyond the bit depth.
        BeyondFound: they are beyond what the set was found to have.
    """
    if values.dtype == np.uint8:
        remark_on_plain(where, form)
        return np.array(values, order="C")
    if values.dtype == np.bool_:
        return np.array(values, dtype=np.uint8, order="C") * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise UnreadableImage(where, f"its pixels are of type {values.dtype}, which are no numbers")
    is_float = values.dtype.kind == "f"
    if form.value_range is not None and (is_float or form.bit_depth is None):
        return _from_range(values, where, form)
    if is_float:
        raise UnreadableImage(
            where,
            "its pixels are floating-point numbers without a stated range (say --data.value-range LOW HIGH)",
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise UnreadableImage(
            where,
            f"its pixels are {8 * values.itemsize}-bit numbers of {low} to {high} without a stated range "
            "(say --data.value-range LOW HIGH)",
        )
    if form.bit_depth is None:
        remark_on_image(low, high, where)
    elif high >> form.bit_depth:
        if form.found:
            raise BeyondFound(
                f"{where} has pixels that reach {high}, and the files of its set that were looked at have no "
                f"more than {form.bit_depth} bits: say --data.bit-depth {depth_for(high)}"
            )
        raise UnreadableImage(
            where,
            f"its pixels reach {high}, which {form.bit_depth} bits (data.bit_depth) do not hold "
            f"(say --data.bit-depth {depth_for(high)})",
        )
    return np.array(to_eight_bits(values, form.bit_depth or FULL), order="C")


def remark_on_plain(where: str, form: PixelForm) -> None:
    """Says, for an image of eight bits, that the range which the set states does not change it."""
    if form.value_range is not None and not form.found:
        remark_once(
            "plain bytes",
            f"{where} has values of eight bits, which are taken as they are; --data.value-range is for more "
            "bits and for floating-point numbers",
        )


def _from_range(values: np.ndarray, where: str, form: PixelForm) -> np.ndarray:
    assert form.value_range is not None
    (low, high), numbers = form.value_range, values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise UnreadableImage(where, "its pixels are not all finite numbers (give every pixel a number)")
    least, most = float(numbers.min()), float(numbers.max())
    if least < low or most > high:
        if form.found:
            raise BeyondFound(
                f"{where} has values of {least:g} to {most:g}, and the files of its set that were looked at "
                f"have floating-point numbers of {low:g} to {high:g}: say --data.value-range LOW HIGH"
            )
        remark_once(
            "value range",
            f"{where} has values of {least:g} to {most:g}; those beyond --data.value-range {low:g} {high:g} "
            "are clipped, in this image and others",
        )
    scaled = np.rint((numbers - low) * (255 / (high - low)))
    return np.clip(scaled, 0, 255).astype(np.uint8, order="C")


def _read_npy(data: bytes, where: str, max_pixels: int | None) -> tuple[np.ndarray, None]:
    """The array of an .npy file."""
    try:
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        header: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = header(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        require_size(shape, where, max_pixels)
        if int(np.prod(shape, dtype=np.float64)) * dtype.itemsize > len(data):
            raise ValueError("its end is missing")
        return np.load(io.BytesIO(data), allow_pickle=False), None
    except UnreadableImage:
        raise
    except Exception as error:  # NumPy raises errors of many types for damaged files
        raise UnreadableImage(where, f"it is no intact .npy array ({reason_of(error)})") from error
