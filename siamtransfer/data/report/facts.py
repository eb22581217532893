"""What the bytes of one image say without its pixels: format, size, channels, orientation, frames."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from siamtransfer.data.bands import NPY_START
from siamtransfer.data.decode import FORMATS, JPEG_START, decode
from siamtransfer.data.deep_png import is_deep_png
from siamtransfer.data.dicom import is_dicom
from siamtransfer.data.effort import require_bounded
from siamtransfer.data.heif import is_heif
from siamtransfer.data.jpeg_xl import is_jpeg_xl
from siamtransfer.data.orientation import UPRIGHT, orientation_of_jpeg, orientation_of_picture
from siamtransfer.data.signatures import kind_of_content
from siamtransfer.data.tga import FORMAT as TGA
from siamtransfer.data.tga import is_tga
from siamtransfer.data.tiff import TIFF_STARTS, tiff_header
from siamtransfer.data.transparency import has_transparency

FORMATS_OF_ENDINGS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **dict.fromkeys(("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"), "JPEG2000"),
    **dict.fromkeys(("heic", "heif", "hif"), "HEIC"),
    **dict.fromkeys(("dcm", "dicom"), "DICOM"),
    "jxl": "JPEG XL",
    **{name.lower(): name for name in ("PNG", "WEBP", "GIF", "AVIF", "TGA")},
    "npy": "array",
}
"""The format that a file with this ending should have."""

MODES = {
    "1": "black and white", "L": "grey", "P": "palette", "RGB": "RGB", "CMYK": "CMYK", "YCbCr": "RGB",
    "LA": "grey with alpha", "La": "grey with alpha", "PA": "palette with alpha", "RGBA": "RGB with alpha",
    "RGBa": "RGB with alpha", "RGBX": "RGB", "LAB": "Lab", "HSV": "HSV", "F": "floating point",
    "I": "grey of more than 8 bits",
}  # fmt: skip
"""The kinds of pixels by Pillow's modes."""


@dataclass(frozen=True)
class ImageFacts:
    """What an image file says of itself.

    Attributes:
        format: `JPEG`, `PNG` …, whatever the file's ending is.
        height, width: of the pixels as they are shown, turned by the EXIF orientation.
        pixels: their kind, such as `RGB`, `grey of more than 8 bits`, `13 channels`.
        turned: an EXIF orientation other than upright is stated.
        frames: the number of pictures in it.
        alpha: it may have transparent pixels.
    """

    format: str
    height: int
    width: int
    pixels: str
    turned: bool = False
    frames: int = 1
    alpha: bool = False


def facts_of(data: bytes, where: str) -> ImageFacts:
    """What the bytes of a file say.

    Raises:
        UnreadableImage, or whatever a reader raises for a damaged file.
    """
    require_bounded(data, where)
    kind = _kind_beyond_pillow(data)
    if kind is not None:
        height, width, channels = decode(data, where).shape
        return ImageFacts(kind, height, width, MODES["RGB"] if channels == 3 else f"{channels} channels")
    if data.startswith(TIFF_STARTS) and (header := tiff_header(io.BytesIO(data))) is not None:
        frames = _frames(data) if header.more_pages else 1
        width, height = header.size
        if header.orientation > 4:
            width, height = height, width
        pixels = _pixels_of_tiff(header.samples, header.bits, inks=header.inks)
        alpha = header.samples in (2, 4) and not header.inks
        return ImageFacts("TIFF", height, width, pixels, header.orientation != UPRIGHT, frames, alpha)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(data) as image:
            width, height = image.size
            is_jpeg = data.startswith(JPEG_START)
            orientation = orientation_of_jpeg(data) if is_jpeg else orientation_of_picture(image)
            if orientation > 4:
                width, height = height, width
            pixels = MODES.get(image.mode, "grey of more than 8 bits" if "I;16" in image.mode else image.mode)
            if is_deep_png(data):
                pixels = f"{pixels} of 16 bits"
            frames = getattr(image, "n_frames", 1) if image.format in ("GIF", "WEBP", "PNG", "AVIF") else 1
            return ImageFacts(
                str(image.format),
                height,
                width,
                pixels,
                orientation != UPRIGHT,
                frames,
                has_transparency(image),
            )


def _kind_beyond_pillow(data: bytes) -> str | None:
    """The format of a file that Pillow does not open; None for one that it may."""
    if data.startswith(NPY_START):
        return "array"
    kinds = {"HEIC": is_heif, "DICOM": is_dicom, "JPEG XL": is_jpeg_xl}
    return next((kind for kind, matches in kinds.items() if matches(data)), None)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if not is_tga(data):
            known = kind_of_content(data) or "no image of a known format"
            raise UnidentifiedImageError(f"its content is {known}") from error
        return Image.open(io.BytesIO(data), formats=(TGA,))


def _pixels_of_tiff(samples: int, bits: int, *, inks: bool) -> str:
    named = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "CMYK" if inks else "RGB with alpha"}
    kind = named.get(samples, f"{samples} channels")
    if bits <= 8:
        return kind
    return "grey of more than 8 bits" if samples == 1 else f"{kind} of {bits} bits"


def _frames(data: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return int(getattr(image, "n_frames", 1))
