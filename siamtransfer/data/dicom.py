"""DICOM images, read by pydicom (the extra `dicom`).

Values are those of the modality (rescaled by slope and intercept, such as Hounsfield units). What becomes
black and white is `PixelForm.value_range`, the window of a whole set. Without one it is what viewers show:
the file's own window, or where it has none the least and the largest value of the image; of up to eight bits
the least and the largest that there can be. MONOCHROME1, in which large values are dark, is inverted. Colours
become RGB. Of several frames the first is taken. (DICOM PS3.3, C.7.6.3, C.11.1 and C.11.2.)
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from siamtransfer.data.depth import remark_once
from siamtransfer.data.file_kinds import PYDICOM
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.sizes import reason_of, require_size
from siamtransfer.data.unreadable import UnreadableImage, WrongChannels

if TYPE_CHECKING:
    from pydicom import Dataset

WINDOWS = "dicom"
"""The kind of the remark on windows."""

OWN_WINDOWS = (
    "each through its own window, or from its least to its largest value where it has more than eight bits "
    "and no window, so contrast differs from file to file; --data.value-range LOW HIGH states one window for "
    "all, such as -160 240 of soft tissue in CT"
)
_SIGNATURE = b"DICM"  # behind a preamble of 128 bytes
_GREY = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(data: bytes) -> bool:
    """Whether a file's content is that of DICOM."""
    return data[128:132] == _SIGNATURE


def read_dicom(data: bytes, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W,C] of the first frame, C being that of `form`; see the module.

    Raises:
        UnreadableImage: pydicom is not installed, or the file is damaged, too large or no image, or needs
            another package for its compression.
        WrongChannels: it has colours and the set one channel, or the set has another number than 1 and 3.
    """
    if not PYDICOM.is_installed:
        raise UnreadableImage(where, PYDICOM.why("a DICOM file"))
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about whatever is unusual and read
            pixels = _pixels(pydicom.dcmread(io.BytesIO(data)), where, form)
    except (UnreadableImage, WrongChannels):
        raise
    except Exception as error:  # pydicom raises errors of many types for damaged files
        raise UnreadableImage(
            where, f"it is a DICOM file that cannot be decoded ({reason_of(error)})"
        ) from error
    if pixels.ndim == 3 and form.channels != 3:
        raise WrongChannels(
            f"{where} is a DICOM image of colours, and the images of its set have {form.channels} channel"
            f"{'s' * (form.channels != 1)}: take it out of the set, or leave --data.channels out"
        )
    if pixels.ndim == 3:
        return np.array(pixels, order="C")
    if form.channels not in (1, 3):
        raise WrongChannels(
            f"{where} is a DICOM image of one channel, and the images of its set have {form.channels}: take "
            "it out of the set, or say --data.channels 1"
        )
    return np.repeat(pixels[..., None], form.channels, axis=2)


def _pixels(file: Dataset, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W], or uint8[H,W,3] of colours."""
    if "PixelData" not in file:
        raise UnreadableImage(where, "it is a DICOM file without pixels")
    samples = int(file.get("SamplesPerPixel", 1))
    require_size((int(file.Rows), int(file.Columns), samples), where, form.max_pixels)
    return _grey(file, where, form) if file.PhotometricInterpretation in _GREY else _colours(file)


def _first_frame(file: Dataset) -> np.ndarray:
    from pydicom.pixels import pixel_array

    return pixel_array(file, index=0)


def _colours(file: Dataset) -> np.ndarray:
    """uint8[H,W,3]: RGB, also of a palette and of luminance and chroma."""
    from pydicom.pixels import apply_color_lut

    values = _first_frame(file)
    if file.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, file)
        entries_have = 16 if values.dtype == np.uint16 else 8
    else:
        entries_have = int(file.BitsStored)
    if values.ndim != 3 or values.shape[2] < 3:
        raise ValueError(f"its pixels are of the form {file.PhotometricInterpretation}")
    shift = entries_have - 8
    return (values[..., :3] >> max(shift, 0)).astype(np.uint8)


def _grey(file: Dataset, where: str, form: PixelForm) -> np.ndarray:
    """uint8[H,W], dark where viewers show it dark."""
    from pydicom.pixels import apply_modality_lut

    stored = _first_frame(file)
    if stored.ndim != 2:
        raise ValueError(f"it is an array of shape {list(stored.shape)}, not [H,W]")
    values = np.asarray(apply_modality_lut(stored, file), dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its values are not all finite numbers")
    if form.value_range is None:
        values, (low, high) = _as_viewers_show(values, file, where)
    else:
        low, high = form.value_range
    shown = np.rint(np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)
    return 255 - shown if file.PhotometricInterpretation == "MONOCHROME1" else shown


def _as_viewers_show(values: np.ndarray, file: Dataset, where: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Values float64[H,W] through the file's window, if any, and those that become black and white."""
    from pydicom.pixels import apply_windowing

    if int(file.BitsStored) > 8:
        remark_once(
            WINDOWS, f"{where} is a DICOM image of {file.BitsStored} bits, shown as viewers do: {OWN_WINDOWS}"
        )
    if _has_window(file):
        beyond = np.array([-1e9, 1e9])  # which become the two ends of the window's output
        shown = apply_windowing(np.concatenate([values.ravel(), beyond]), file)
        return shown[:-2].reshape(values.shape), (float(shown[-2]), float(shown[-1]))
    if int(file.BitsStored) <= 8:
        return values, (0.0, float((1 << file.BitsStored) - 1))
    return values, (float(values.min()), float(values.max()))


def _has_window(file: Dataset) -> bool:
    """Whether a file states a window; one without width is none."""
    stated = [file.get(name) for name in ("WindowCenter", "WindowWidth")]
    if any(value is None or str(value) in ("", "[]") for value in stated):
        return False
    return float(np.atleast_1d(stated[1])[0]) >= 1
