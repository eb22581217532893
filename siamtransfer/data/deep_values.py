"""The values of an image of more than eight bits, or of floating-point numbers, as its file has them."""

from __future__ import annotations

import io
import struct
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from siamtransfer.data.bands import NPY_START, values_of_array
from siamtransfer.data.deep_png import PNG_START, is_deep_png, read_deep_png
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.pnm import quick_pnm
from siamtransfer.data.tiff import TIFF_STARTS, TiffHeader, tiff_header

DEEP_STARTS = (PNG_START, *TIFF_STARTS, b"P2", b"P5", NPY_START)
"""The beginnings of files in formats of more than eight bits."""

_FORMATS = ("PNG", "TIFF", "PPM")
_PNG_DEPTH = 24  # position in the file


class Extremes(NamedTuple):
    """The least and the largest finite value of a deep image, over all its channels.

    Attributes:
        floating: whether they are floating-point numbers.
        stated: the bits that the file says are in use, where its values fit into them; else None.
    """

    low: float
    high: float
    floating: bool
    stated: int | None = None


def extremes_of(data: bytes, form: PixelForm) -> Extremes | None:
    """The extremes of a file; None where it has eight bits or fewer, is damaged (reading it will say so), or
    needs a package that is missing (so will that)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            values = _values(data, form)
    except Exception:  # Pillow's readers raise errors of many types for damaged files
        return None
    if values is None or values.dtype.kind not in "iuf":
        return None
    floating = values.dtype.kind == "f"
    finite = values[np.isfinite(values)] if floating else values
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    return Extremes(low, high, floating, None if floating else _stated_bits(data, high))


def _values(data: bytes, form: PixelForm) -> np.ndarray | None:
    """The values of an image that is deep, else None."""
    if data.startswith(NPY_START):
        values = values_of_array(data, "", form)
        return None if values.dtype in (np.uint8, np.bool_) else values
    if data.startswith(PNG_START) and data[_PNG_DEPTH : _PNG_DEPTH + 1] != b"\x10":
        return None
    if is_deep_png(data):
        return read_deep_png(data)[0]
    header = tiff_header(io.BytesIO(data)) if data.startswith(TIFF_STARTS) else None
    if header is not None and header.bits <= 8:
        return None
    if header is not None and (header.samples > 1 or header.more_pages):
        return values_of_array(data, "", _of_samples(header, form))
    with Image.open(io.BytesIO(quick_pnm(data)), formats=_FORMATS) as image:
        deep = image.mode in ("F", "I") or image.mode.startswith("I;16")
        return np.asarray(image) if deep else None


def _of_samples(header: TiffHeader, form: PixelForm) -> PixelForm:
    """A form that takes the file's own channels in a set of three."""
    return PixelForm(header.samples if form.channels == 3 else form.channels, axes=form.axes)


def _stated_bits(data: bytes, high: float) -> int | None:
    """The bits that a file states, where they hold its largest value.

    A TIFF may have samples of 12 bits, or the tag MaxSampleValue. The chunk sBIT of a PNG is the depth of the
    original, whose samples the standard wants spread over all 16 bits; a file whose values still fit into the
    original's depth was written without that.
    """
    stated = None
    if data.startswith(TIFF_STARTS):
        header = tiff_header(io.BytesIO(data))
        if header is not None and 8 < header.bits < 16:
            stated = header.bits
        elif header is not None and header.largest:
            stated = header.largest.bit_length()
    elif data.startswith(PNG_START):
        stated = _significant_bits(data)
    return stated if stated is not None and not int(high) >> stated else None


def _significant_bits(data: bytes) -> int | None:
    """The largest number of bits in the chunk sBIT, which stands before the pixels; None without one."""
    position = 8
    while len(head := data[position : position + 8]) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"sBIT":
            return max(data[position + 8 : position + 8 + length], default=None)
        if kind == b"IDAT":
            return None
        position += length + 12  # length, name and checksum
    return None
