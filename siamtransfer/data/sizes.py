"""Images that claim to be too large are refused before any memory is taken for them.

The limit is that of the set (`PixelForm.max_pixels`), or where it states none that of Pillow,
`Image.MAX_IMAGE_PIXELS`.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Iterator, Sequence

from PIL import Image

from siamtransfer.data.unreadable import UnreadableImage

MOST_CHANNELS = 512  # a hyperspectral camera has some hundred

_CLAIM = "it claims to have"
_lifting = threading.Lock()
_state = threading.Lock()
_usual: list[int | None] = []
"""Pillow's limit, while it is raised."""


def pixel_limit(stated: int | None) -> int | None:
    """The most pixels that an image may have; None for any number."""
    if stated is not None:
        return stated
    with _state:
        return _usual[0] if _usual else Image.MAX_IMAGE_PIXELS


def too_large(pixels: int, stated: int | None) -> str:
    """Why an image of so many pixels is not read. `stated` is the limit of the set."""
    return (
        f"{_CLAIM} {pixels:,} pixels, more than the {pixel_limit(stated):,} pixels allowed "
        f"(--data.max-pixels {pixels} allows it)"
    )


def too_many_bytes(size: int, most: int, pixels: int) -> str:
    """Why a file of so many bytes is not read: an image has `most`, and `pixels` would let it in."""
    return (
        f"{_CLAIM} {size:,} bytes, more than the {most:,} bytes of an image file "
        f"(--data.max-pixels {pixels} allows it)"
    )


def is_too_large(why: str) -> bool:
    """Whether an image is not read because of its size, by the sentence that says why."""
    return why.startswith(_CLAIM)


def refused_by_pillow(error: Exception, where: str, stated: int | None) -> UnreadableImage:
    """The error for an image that Pillow's own check refused; its message has the number of pixels."""
    found = re.search(r"(\d+) pixels", str(error))
    if found is None:
        return UnreadableImage(where, f"{_CLAIM} more than {pixel_limit(stated):,} pixels")
    return UnreadableImage(where, too_large(int(found[1]), stated))


def require_size(shape: Sequence[int], where: str, stated: int | None) -> None:
    """Refuses an array of too many pixels, or of MOST_CHANNELS times as many values, before any memory is
    taken for it. `stated` is the limit of the set."""
    pixels, values = math.prod(sorted(map(int, shape))[-2:]), math.prod(map(int, shape))
    most = pixel_limit(stated)
    if most is not None and (pixels > most or values > MOST_CHANNELS * most):
        raise UnreadableImage(where, too_large(pixels, stated))


def is_raised(stated: int) -> bool:
    """Whether a set allows larger images than Pillow does by itself."""
    usual = pixel_limit(None)
    return usual is not None and stated > usual


@contextlib.contextmanager
def raised_limit(stated: int) -> Iterator[None]:
    """Pillow allows `stated` pixels in the body, which one thread at a time can be in.

    Pillow's limit is one for the whole process, so it is raised for single images that need it alone, and
    meanwhile `pixel_limit` tells the other threads the usual one.
    """
    with _lifting:
        with _state:
            _usual.append(Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = stated
        try:
            yield
        finally:
            with _state:
                Image.MAX_IMAGE_PIXELS = _usual.pop()


def allowed(stated: int | None) -> contextlib.AbstractContextManager[None]:
    """Where a set allows more than Pillow does, Pillow allows that in the body; see `raised_limit`."""
    return raised_limit(stated) if stated is not None and is_raised(stated) else contextlib.nullcontext()


def reason_of(error: Exception) -> str:
    """What an error of a reader says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
