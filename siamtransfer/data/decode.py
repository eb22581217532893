"""From the bytes of an image file to uint8[H,W,3] in RGB, or to a reason why not.

The content decides, never the file's ending. Ordinary JPEGs go through simplejpeg (libjpeg-turbo, faster than
through Pillow), with the accurate transform and the smooth chroma upsampling that Pillow uses too, so the
pixels are equal to Pillow's. Everything else goes through Pillow.

Images that are not plain 8-bit RGB are read as torchvision's ImageFolder reads them, unless noted:
  grey, 1-bit, palette   the colour they show, in three channels
  alpha                  dropped, not blended: the colours stored under transparent pixels appear
  CMYK, YCCK             Pillow's conversion, which knows no colour profile
  16-bit                 the upper eight bits, for grey images too (ImageFolder clips those to white); of
                         a set whose images use fewer bits, `bit_depth` says how many (see depth.py)
  32-bit integer         as 16-bit when its values fit, otherwise refused
  floating point         refused: the range of its values is not stated in the file
  several frames         the first
  EXIF orientation       not applied: the pixels are taken as they are stored
A truncated file is refused and never filled up with grey; so is an image of more pixels than
`Image.MAX_IMAGE_PIXELS`, before any memory is taken for it.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from siamtransfer.data.depth import FULL, remark_on_image, to_eight_bits
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.text import printable

# Other readers of Pillow are left out on purpose: one starts a program (EPS), many are seldom used.
READERS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    GifImagePlugin.GifImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS = tuple(reader.format for reader in READERS)
JPEG_START = b"\xff\xd8\xff"


def decode(
    source: bytes | str | os.PathLike[str], where: str | None = None, bit_depth: int | None = None
) -> np.ndarray:
    """Decodes an image, given as a path or as a file's bytes, to uint8[H,W,3] RGB, C-contiguous and writable.

    `where` names the image in errors; by default the path. `bit_depth` is that of grey images with more than
    eight bits; None is 16, with a remark where an image uses few of them.

    Raises:
        UnreadableImage: whatever is wrong with the file or its content.
    """
    if isinstance(source, bytes):
        return _decode(source, where or "(bytes)", bit_depth)
    where = where or printable(source)
    return _decode(read_file(source, where), where, bit_depth)


def read_file(path: str | os.PathLike[str], where: str | None = None) -> bytes:
    """The bytes of a file; raises UnreadableImage, which names it as `where`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        why = f"the file cannot be opened ({error.strerror or error})"
        raise UnreadableImage(where or printable(path), why) from error


def _decode(data: bytes, where: str, bit_depth: int | None) -> np.ndarray:
    if not data:
        raise UnreadableImage(where, "the file is empty")
    pixels = _decode_plain_jpeg(data, where) if data.startswith(JPEG_START) else None
    return _decode_with_pillow(data, where, bit_depth) if pixels is None else pixels


def _decode_plain_jpeg(data: bytes, where: str) -> np.ndarray | None:
    """A grey or YCbCr JPEG in RGB; None for what Pillow should read (CMYK, rare variants, damage)."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        if colour not in ("YCbCr", "Gray"):
            return None
        if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
            raise UnreadableImage(where, _too_large(height * width))
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError as error:
        # libjpeg would fill the missing part with grey, and so would Pillow if the end marker is there.
        if "premature end" in str(error).lower():
            raise UnreadableImage(where, "it is truncated or a part of it is missing") from error
        return None


def _decode_with_pillow(data: bytes, where: str, bit_depth: int | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF blocks and palettes; nothing that changes a pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return to_rgb(image, where, bit_depth)
        except UnreadableImage:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UnreadableImage(where, _too_large()) from error
        except UnidentifiedImageError as error:
            kinds = "JPEG, PNG, WebP, BMP, TIFF, GIF or PPM"
            raise UnreadableImage(where, f"its content is no {kinds} image, or is too damaged") from error
        except Exception as error:  # Pillow's readers raise errors of many types for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableImage(where, f"it cannot be decoded ({reason})") from error


def to_rgb(image: Image.Image, where: str, bit_depth: int | None = None) -> np.ndarray:
    """uint8[H,W,3] of a Pillow image by the rules above; `where` names it in errors.

    Raises:
        UnreadableImage: the range of its values is not known, or they have more than `bit_depth` bits.
    """
    if image.mode == "F":
        raise UnreadableImage(where, "its pixels are floating-point numbers without a stated range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 0xFFFF:
            raise UnreadableImage(where, "its pixels are 32-bit numbers without a stated range")
        if bit_depth is None:
            remark_on_image(low, high, where)
        elif high >> bit_depth:
            raise UnreadableImage(
                where, f"its pixels reach {high}, which {bit_depth} bits (data.bit_depth) do not hold"
            )
        return np.repeat(to_eight_bits(values, bit_depth or FULL)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _too_large(pixels: int | None = None) -> str:
    claim = "more" if pixels is None else f"{pixels:,} pixels, more"
    return f"it claims to have {claim} than the {Image.MAX_IMAGE_PIXELS:,} pixels allowed"
