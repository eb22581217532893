"""Images that claim to be too large are refused before any memory is taken for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from siamtransfer.data.unreadable import UnreadableImage

MOST_CHANNELS = 512  # a hyperspectral camera has some hundred


def too_large(pixels: int | None = None) -> str:
    """Why an image of so many pixels is not read; None where their number is not known."""
    claim = "more" if pixels is None else f"{pixels:,} pixels, more"
    return f"it claims to have {claim} than the {Image.MAX_IMAGE_PIXELS:,} pixels allowed"


def require_size(shape: Sequence[int], where: str) -> None:
    """Refuses an array of too many pixels, or of MOST_CHANNELS times as many values, before any memory is
    taken for it."""
    pixels, values = (int(np.prod(sides, dtype=np.float64)) for sides in (sorted(shape)[-2:], shape))
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and (pixels > most or values > MOST_CHANNELS * most):
        raise UnreadableImage(where, too_large(pixels))


def reason_of(error: Exception) -> str:
    """What an error of a reader says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
