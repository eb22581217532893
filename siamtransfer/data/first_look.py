"""A first look at some files of a set when it is opened: what decides the form of its pixels, and what a user
should know of them."""

from __future__ import annotations

import io
import warnings
from typing import IO, NamedTuple, Protocol

import numpy as np
from PIL import Image

from siamtransfer.data.deep_png import PNG_START
from siamtransfer.data.deep_values import DEEP_STARTS, Extremes, extremes_of
from siamtransfer.data.dicom import is_dicom
from siamtransfer.data.effort import effort_of
from siamtransfer.data.orientation import (
    JPEG_HEAD,
    UPRIGHT,
    orientation_of_jpeg,
    orientation_of_picture,
    orientation_of_png,
)
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.tiff import MOST_CHANNELS_OF_PILLOW, TIFF_STARTS, TiffHeader, tiff_header
from siamtransfer.data.transparency import flatten, has_transparency, is_opaque, lost_on
from siamtransfer.data.unreadable import UnreadableImage

LOOKED_AT = 32
"""Files of a set that are looked at."""

MOST_BYTES = 2**29
"""Bytes of them that are read; of further files the header is."""

_PNG_CHANNELS = {0: 1, 4: 2, 2: 3, 6: 4}  # by its types of colour; a palette is none of these
_PNG_HEADER = 26
_SHOWN_STARTS = (b"RIFF", b"GIF8")
_FORMATS = ("PNG", "WEBP", "GIF", "TIFF")


class Files(Protocol):
    """The part of a set of image files that is looked at."""

    name: str
    split: str

    def __len__(self) -> int: ...

    def opened(self, index: int) -> IO[bytes]:
        """The file of image `index`, to be closed; raises OSError or UnreadableImage."""

    def describe(self, index: int) -> str: ...

    def relative_name(self, index: int) -> str:
        """The name that a copy of the set has too; remarks have it, since records have them."""


class Look(NamedTuple):
    """What was seen of a file. Of one that cannot be read, nothing: reading it will name it.

    Attributes:
        header: that of a TIFF file, or what that of a PNG says in the same terms.
        orientation: as EXIF's.
        transparent: whether a pixel is not opaque.
        lost_on_background: whether it shows nothing on the background of the set, and would on another one.
        extremes: of an image of more than eight bits.
        dicom: whether it is a DICOM file.
    """

    header: TiffHeader | None = None
    orientation: int = UPRIGHT
    transparent: bool = False
    lost_on_background: bool = False
    extremes: Extremes | None = None
    dicom: bool = False


def evenly(length: int, count: int) -> list[int]:
    """Up to `count` indices of a set of that length, evenly taken."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def look_at(files: Files, form: PixelForm) -> dict[int, Look]:
    """A look at up to LOOKED_AT files, evenly taken, by their indices; `form` has the channels and the
    background of the set."""
    looks, budget = {}, MOST_BYTES
    for index in evenly(len(files), LOOKED_AT):
        try:
            with files.opened(index) as stream:
                start = stream.read(JPEG_HEAD)
                rest = (
                    stream.read() if start.startswith((*DEEP_STARTS, *_SHOWN_STARTS)) and budget > 0 else b""
                )
        except (OSError, UnreadableImage):
            looks[index] = Look()
            continue
        budget -= len(start) + len(rest)
        looks[index] = _look(start + rest, form)
    return looks


def _look(data: bytes, form: PixelForm) -> Look:
    if is_dicom(data):
        return Look(dicom=True)
    if effort_of(data, form.max_pixels) is not None:  # reading it says so
        return Look()
    if data.startswith(b"\xff\xd8"):
        return Look(orientation=orientation_of_jpeg(data))
    if not data.startswith((*DEEP_STARTS, *_SHOWN_STARTS)):
        return Look()
    header = _header(data)
    look = Look(header=header, extremes=extremes_of(data, form))
    if header is not None and header.samples > MOST_CHANNELS_OF_PILLOW:
        return look._replace(orientation=header.orientation)
    if not data.startswith((PNG_START, *TIFF_STARTS, *_SHOWN_STARTS)):
        return look
    return _with_picture(look, data, form)


def _with_picture(look: Look, data: bytes, form: PixelForm) -> Look:
    """The look, with what Pillow says of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                png = image.format == "PNG"
                orientation = orientation_of_png(io.BytesIO(data)) if png else orientation_of_picture(image)
                look = look._replace(orientation=orientation)
                if form.channels != 3 or not has_transparency(image) or is_opaque(image):
                    return look
                lost = False
                if form.background is not None:
                    pixels = flatten(image, form.background)
                    lost = lost_on(image, pixels, form.background) is not None
                return look._replace(transparent=True, lost_on_background=lost)
    except Exception:  # Pillow's readers raise errors of many types for damaged files
        return look


def _header(data: bytes) -> TiffHeader | None:
    """The header of a TIFF file, or what that of a PNG says in the same terms; None for any other file."""
    if data.startswith(PNG_START) and len(data) >= _PNG_HEADER:
        samples = _PNG_CHANNELS.get(data[25])
        if samples is None:
            return None
        return TiffHeader(samples, data[24], False, False, alpha=samples in (2, 4))
    return tiff_header(io.BytesIO(data))
