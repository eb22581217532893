"""From the bytes of an image file to uint8[H,W,C], RGB as a rule, or to a reason why not.

The content decides, never the file's ending. Ordinary JPEGs go through simplejpeg (libjpeg-turbo, faster than
through Pillow), with the accurate transform and the smooth chroma upsampling that Pillow uses too, so the
pixels are equal to Pillow's. Everything else goes through Pillow.

The rules for transparency, orientation and depth are those of the set, `PixelForm`, and docs/IMAGES.md
explains them. In short, of images that are not plain 8-bit RGB:
  grey, 1-bit, palette   the colour they show, in three channels
  alpha                  on the background of the set; without one it is left out, as torchvision's
                         ImageFolder does, and the colours stored under transparent pixels appear
  EXIF orientation       turned, or as stored; see orientation.py
  CMYK, YCCK             Pillow's conversion, which knows no colour profile
  16-bit                 the upper eight bits of 16, or of the bits that `PixelForm.bit_depth` states
  arrays (.npy)          of three channels only
  32-bit integer         as 16-bit when its values fit, otherwise refused
  floating point         refused, unless the set has a `PixelForm.value_range`
  several frames         the first
Of a set of another number of channels than three nothing is converted; see bands.py.
A truncated file is refused and never filled up with grey; so is an image of more pixels than the set allows,
before any memory is taken for it, and one of more parts than an ordinary file has (effort.py).
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import replace

import numpy as np
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
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
    remark_on_plain,
    to_bytes,
    to_three_channels,
    values_of_array,
)
from siamtransfer.data.dicom import is_dicom, read_dicom
from siamtransfer.data.effort import require_bounded
from siamtransfer.data.heif import is_heif, open_heif
from siamtransfer.data.image_file import read_file
from siamtransfer.data.jpeg_xl import is_jpeg_xl, read_jpeg_xl
from siamtransfer.data.orientation import (
    UPRIGHT,
    orientation_of_jpeg,
    turn,
)
from siamtransfer.data.pictures import channels_of_values, is_scaled, pixels_of_file
from siamtransfer.data.pixel_form import RGB, PixelForm
from siamtransfer.data.pnm import quick_pnm
from siamtransfer.data.signatures import kind_of_content
from siamtransfer.data.sizes import (
    is_raised,
    pixel_limit,
    raised_limit,
    refused_by_pillow,
    require_size,
    too_large,
)
from siamtransfer.data.tga import FORMAT as TGA
from siamtransfer.data.tga import is_tga
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
    AvifImagePlugin.AvifImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
)
FORMATS = tuple(reader.format for reader in READERS)
KINDS = "JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF, HEIC, TGA, JPEG 2000, JPEG XL or DICOM"
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
    return _decode(read_file(source, where, form), where, form)


def _decode(data: bytes, where: str, form: PixelForm) -> np.ndarray:
    if not data:
        raise UnreadableImage(where, "the file is empty")
    require_bounded(data, where, form.max_pixels)
    if is_dicom(data):  # which may begin like a TIFF image
        return read_dicom(data, where, form)
    if is_jpeg_xl(data):
        return channels_of_values(read_jpeg_xl(data, where, form.max_pixels), where, form)
    if data.startswith(NPY_START) or (form.channels != 3 and is_array_or_tiff(data)):
        return _decode_values(data, where, form)
    is_jpeg = data.startswith(JPEG_START) and form.channels in (1, 3)
    pixels = _decode_plain_jpeg(data, where, form) if is_jpeg else None
    if pixels is None:
        return _decode_with_pillow(data, where, form)
    remark_on_plain(where, form)
    return turn(pixels, orientation_of_jpeg(data)) if form.orientation == "shown" else pixels


def _decode_values(data: bytes, where: str, form: PixelForm, header: TiffHeader | None = None) -> np.ndarray:
    """An .npy array, or a TIFF file through tifffile. With three channels the file may have one to four."""
    if not data.startswith(NPY_START):
        header = header or tiff_header(io.BytesIO(data))
    if header is not None and form.channels == 3 and header.samples in range(1, 5) and not header.inks:
        values = values_of_array(data, where, replace(form, channels=header.samples))
        if header.samples in (2, 4) and not header.alpha:  # as Pillow does, which leaves such a channel out
            values = values[..., :-1]
        pixels = to_three_channels(values, where, form, premultiplied=header.premultiplied)
    else:
        pixels = to_bytes(values_of_array(data, where, form), where, form)
    orientation = header.orientation if header is not None else UPRIGHT
    return turn(pixels, orientation) if form.orientation == "shown" else pixels


def _decode_plain_jpeg(data: bytes, where: str, form: PixelForm) -> np.ndarray | None:
    """A grey or YCbCr JPEG in RGB, or a grey one in one channel; None for what Pillow should read (CMYK, rare
    variants, damage, colours of which one channel is asked for)."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        if colour != "Gray" and (colour != "YCbCr" or form.channels != 3):
            return None
        most = pixel_limit(form.max_pixels)
        if most is not None and height * width > most:
            raise UnreadableImage(where, too_large(height * width, form.max_pixels))
        space = "RGB" if form.channels == 3 else "GRAY"
        return simplejpeg.decode_jpeg(data, space, fastdct=False, fastupsample=False)
    except ValueError as error:
        # libjpeg would fill the missing part with grey, and so would Pillow if the end marker is there.
        if "premature end" in str(error).lower():
            raise UnreadableImage(where, "it is truncated or a part of it is missing") from error
        return None


def _decode_with_pillow(data: bytes, where: str, form: PixelForm, *, raised: bool = False) -> np.ndarray:
    """`raised` says that Pillow's own limit is that of the set already."""
    header = tiff_header(io.BytesIO(data)) if data.startswith(TIFF_STARTS) else None
    if header is not None and _is_beyond_pillow(header, form):
        return _decode_values(data, where, form, header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about EXIF blocks and palettes; nothing that changes a pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _open_picture(data, where, form) as image:
                require_size((image.height, image.width), where, form.max_pixels)
                return pixels_of_file(image, data, where, form)
        except UserError:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            if form.max_pixels is not None and is_raised(form.max_pixels) and not raised:
                with raised_limit(form.max_pixels):
                    return _decode_with_pillow(data, where, form, raised=True)
            raise refused_by_pillow(error, where, form.max_pixels) from error
        except UnidentifiedImageError as error:
            if header is not None and (header.samples == 2 or header.bits > 16):
                return _decode_values(data, where, form, header)
            kind = kind_of_content(data)
            why = f"its content is {kind or f'no {KINDS} image, or is too damaged'}"
            raise UnreadableImage(where, why) from error
        except Exception as error:  # Pillow's readers raise errors of many types for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableImage(where, f"it cannot be decoded ({reason})") from error


def _open_picture(data: bytes, where: str, form: PixelForm) -> Image.Image:
    """A file, opened by Pillow or for it; its pixels are not decoded yet, those of HEIC excepted."""
    if is_heif(data):
        return open_heif(data, where, form.max_pixels)
    try:
        return Image.open(io.BytesIO(quick_pnm(data)), formats=FORMATS)
    except UnidentifiedImageError:
        if not is_tga(data):
            raise
        return Image.open(io.BytesIO(data), formats=(TGA,))


def _is_beyond_pillow(header: TiffHeader, form: PixelForm) -> bool:
    """Whether a TIFF has more than four channels, or colours that are scaled or have more than 16 bits: of
    those Pillow reads the upper eight bits only, and of these none."""
    return header.samples > MOST_CHANNELS_OF_PILLOW or (
        header.samples >= 3 and header.bits > 8 and (is_scaled(form) or header.bits > 16)
    )
