"""The bytes of an image file, of ordinary files only and not of endless ones.

A pipe to which nobody writes blocks for ever, a device such as /dev/zero has no end, and a sparse file may
claim to have more bytes than a disk. So a file is opened without waiting, its kind and its size are looked
at, and then it is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from siamtransfer.data.pixel_form import RGB, PixelForm
from siamtransfer.data.sizes import too_many_bytes
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.regular_files import special_kind
from siamtransfer.utils.text import printable

MOST_BYTES = 2**30
"""Bytes of one image file, where the set does not allow larger images than usual. The largest image that is
read by default has 89 million pixels, which are 716 MB at four channels of 16 bits."""

_BYTES = 8  # of a value, at most


def byte_limit(form: PixelForm) -> int:
    """The most bytes that an image file of a set may have; `max_pixels` raises it."""
    return max(MOST_BYTES, (form.max_pixels or 0) * _bytes_of_pixel(form))


def require_bytes(size: int, where: str, form: PixelForm) -> None:
    """Raises UnreadableImage where a file of so many bytes is larger than any image of its set."""
    if size > byte_limit(form):
        raise UnreadableImage(
            where, too_many_bytes(size, byte_limit(form), -(-size // _bytes_of_pixel(form)))
        )


def open_image(path: str | os.PathLike[str], where: str | None = None, form: PixelForm = RGB) -> IO[bytes]:
    """An image file, to be read and closed; `where` names it in errors, by default its path.

    Raises:
        UnreadableImage: it is no ordinary file, it cannot be opened, or it is too large for an image.
    """
    where = where or printable(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _cannot_open(where, path, error) from error
    try:
        status = os.fstat(descriptor)
        if (kind := special_kind(status.st_mode)) is not None:
            raise UnreadableImage(where, f"it is {kind} and no file")
        require_bytes(status.st_size, where, form)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: str | os.PathLike[str], where: str | None = None, form: PixelForm = RGB) -> bytes:
    """The bytes of an image file; `where` names it in errors, by default its path.

    Raises:
        UnreadableImage: see `open_image`; or a part of it cannot be read.
    """
    where = where or printable(path)
    with open_image(path, where, form) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read(size)
        except OSError as error:
            raise UnreadableImage(where, f"the file cannot be read ({error.strerror or error})") from error
    if len(data) < size:
        raise UnreadableImage(where, f"the file became shorter than its {size:,} bytes while it was read")
    return data


def _bytes_of_pixel(form: PixelForm) -> int:
    return _BYTES * max(form.channels, 4)


def _cannot_open(where: str, path: str | os.PathLike[str], error: OSError | ValueError) -> UnreadableImage:
    """The error for a file that cannot be opened; a name with a NUL raises ValueError."""
    if isinstance(error, OSError):
        try:
            if stat.S_ISSOCK(Path(path).stat().st_mode):  # which cannot be opened
                return UnreadableImage(where, "it is a socket and no file")
        except OSError:
            pass
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UnreadableImage(where, f"the file cannot be opened ({reason or error})")
