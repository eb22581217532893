"""Masks of images that have an EXIF orientation.

Some programs draw a mask on the photograph as it is shown, others on its pixels as they are stored. The size
of the mask tells which, where the orientation swaps height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from siamtransfer.data.decode import FORMATS
from siamtransfer.data.orientation import UPRIGHT, StoredSize, stored_size, turn, turn_back
from siamtransfer.data.pixel_form import Orientation
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


class MaskReading(NamedTuple):
    """How the images of a set are read, and whether the user has stated it: masks are then as the images are
    read, unless their size says otherwise."""

    orientation: Orientation = "stored"
    stated: bool = False

    @property
    def may_turn(self) -> bool:
        """Whether the orientation of an image says something of its mask."""
        return self.stated or self.orientation == "shown"


AS_STORED = MaskReading()
"""The reading of published sets."""


def size_of_image(path: str) -> StoredSize:
    """What the header of an image says; raises whatever Pillow's readers do for damaged files."""
    return stored_size(path, FORMATS)


def as_image_is_read(mask: np.ndarray, reading: MaskReading, image_path: str, mask_path: str) -> np.ndarray:
    """A mask[H,W] (or a depth map) turned as its image is read. One that fits neither way, or whose image
    cannot be read, is returned as it is: that is said where image and mask are compared.

    Raises:
        UserError: both ways fit and nobody said which it is.
    """
    if not reading.may_turn:
        return mask
    try:
        size = size_of_image(image_path)
    except Exception:  # Pillow's readers raise errors of many types for damaged files
        return mask
    if size.orientation == UPRIGHT:
        return mask
    read = size.size(reading.orientation)
    other = size.size("stored" if reading.orientation == "shown" else "shown")
    if read != other and mask.shape == other:
        back = reading.orientation == "stored"
        return turn_back(mask, size.orientation) if back else turn(mask, size.orientation)
    if read == other and mask.shape == read and not reading.stated:
        raise UserError(
            f"{printable(image_path)} has the EXIF orientation {size.orientation}, which keeps its size, so "
            f"nothing shows whether {printable(mask_path)} was drawn on the image as it is shown or as it is "
            "stored: say data.orientation shown or stored, by which both are then read"
        )
    return mask
