"""From the bytes of an image file to uint8[H,W,C], RGB as a rule, or to a reason why not.

The content decides, never the file's ending. Ordinary JPEGs go through simplejpeg (libjpeg-turbo, faster than
through Pillow), with the accurate transform and the smooth chroma upsampling that Pillow uses too, so the
pixels are equal to Pillow's. Everything else goes through Pillow.

Images that are not plain 8-bit RGB are read as torchvision's ImageFolder reads them, unless noted:
  grey, 1-bit, palette   the colour they show, in three channels
  alpha                  dropped, not blended: the colours stored under transparent pixels appear
  CMYK, YCCK             Pillow's conversion, which knows no colour profile
  16-bit                 the upper eight bits, for grey images too (ImageFolder clips those to white); of
                         a set whose images use fewer bits, `PixelForm.bit_depth` says how many, and
                         `PixelForm.value_range` which values become black and white
  arrays (.npy)          of three channels only
  32-bit integer         as 16-bit when its values fit, otherwise refused
  floating point         refused, for a file does not state the range of its values, unless the set does
  several frames         the first
  EXIF orientation       not applied: the pixels are taken as they are stored
Of a set of another number of channels than three nothing is converted; see bands.py.
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

from siamtransfer.data.bands import (
    NPY_START,
    is_array_or_tiff,
    refuse_deep_png,
    remark_on_plain,
    to_bytes,
    values_of_array,
    values_of_picture,
)
from siamtransfer.data.pixel_form import RGB, PixelForm
from siamtransfer.data.sizes import too_large
from siamtransfer.data.tiff import MOST_CHANNELS_OF_PILLOW, TIFF_STARTS, TiffHeader, tiff_header
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
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
    source: bytes | str | os.PathLike[str], where: str | None = None, form: PixelForm = RGB
) -> np.ndarray:
    """Decodes an image, given as a path or as a file's bytes, to uint8[H,W,C], C-contiguous and writable.

    `where` names the image in errors; by default the path. `form` is that of the set; by default RGB.

    Raises:
        UnreadableImage: whatever is wrong with the file or its content.
        WrongChannels: the file is intact and has not the channels of the set.
        UserError: the file needs tifffile, which is not installed.
    """
    if isinstance(source, bytes):
        return _decode(source, where or "(bytes)", form)
    where = where or printable(source)
    return _decode(read_file(source, where), where, form)


def read_file(path: str | os.PathLike[str], where: str | None = None) -> bytes:
    """The bytes of a file; raises UnreadableImage, which names it as `where`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        why = f"the file cannot be opened ({error.strerror or error})"
        raise UnreadableImage(where or printable(path), why) from error


def _decode(data: bytes, where: str, form: PixelForm) -> np.ndarray:
    if not data:
        raise UnreadableImage(where, "the file is empty")
    if data.startswith(NPY_START) or (form.channels != 3 and is_array_or_tiff(data)):
        return to_bytes(values_of_array(data, where, form), where, form)
    is_jpeg = data.startswith(JPEG_START) and form.channels in (1, 3)
    pixels = _decode_plain_jpeg(data, where, form) if is_jpeg else None
    if pixels is None:
        return _decode_with_pillow(data, where, form)
    remark_on_plain(where, form)
    return pixels


def _decode_plain_jpeg(data: bytes, where: str, form: PixelForm) -> np.ndarray | None:
    """A grey or YCbCr JPEG in RGB, or a grey one in one channel; None for what Pillow should read (CMYK, rare
    variants, damage, colours of which one channel is asked for)."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        if colour != "Gray" and (colour != "YCbCr" or form.channels != 3):
            return None
        if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
            raise UnreadableImage(where, too_large(height * width))
        space = "RGB" if form.channels == 3 else "GRAY"
        return simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    except ValueError as error:
        # libjpeg would fill the missing part with grey, and so would Pillow if the end marker is there.
        if "premature end" in str(error).lower():
            raise UnreadableImage(where, "it is truncated or a part of it is missing") from error
        return None


def _decode_with_pillow(data: bytes, where: str, form: PixelForm) -> np.ndarray:
    refuse_deep_png(data, where, form)
    header = tiff_header(io.BytesIO(data)) if data.startswith(TIFF_STARTS) else None
    if header is not None and _is_beyond_pillow(header, form):
        return to_bytes(values_of_array(data, where, form), where, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF blocks and palettes; nothing that changes a pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if form.channels == 3:
                    return to_rgb(image, where, form)
                return to_bytes(values_of_picture(image, where, form), where, form)
        except UserError:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UnreadableImage(where, too_large()) from error
        except UnidentifiedImageError as error:
            if header is not None and (header.samples == 2 or header.bits > 16):
                return to_bytes(values_of_array(data, where, form), where, form)
            kinds = "JPEG, PNG, WebP, BMP, TIFF, GIF or PPM"
            raise UnreadableImage(where, f"its content is no {kinds} image, or is too damaged") from error
        except Exception as error:  # Pillow's readers raise errors of many types for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableImage(where, f"it cannot be decoded ({reason})") from error


def _is_beyond_pillow(header: TiffHeader, form: PixelForm) -> bool:
    """Whether a TIFF has more than four channels, or colours of more than eight bits whose scale is stated:
    Pillow reads their upper eight bits only, and no floating-point numbers."""
    scaled = form.bit_depth is not None or form.value_range is not None
    return header.samples > MOST_CHANNELS_OF_PILLOW or (scaled and header.samples >= 3 and header.bits > 8)


def to_rgb(image: Image.Image, where: str, form: PixelForm = RGB) -> np.ndarray:
    """uint8[H,W,3] of a Pillow image by the rules above; `where` names it in errors.

    Raises:
        UnreadableImage: the range of its values is not known, or they have more bits than the set.
    """
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return np.repeat(to_bytes(np.asarray(image), where, form)[..., None], 3, axis=2)
    remark_on_plain(where, form)
    return np.array(image.convert("RGB"))
