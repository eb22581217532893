"""Files that a user gives: ordinary ones, with content on the disk.

Opening a pipe waits for a writer for ever, a device never ends, and a file of holes (a download that
reserved its place and stopped, or a test of patience) reads as gigabytes of zeros.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

LARGE = 2**30
"""Bytes from which on a file is looked at for holes; smaller ones are read in a moment."""
_LEAST_SHARE = 0.1
_MOST_PIECES = 1000
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Raises UserError where `path` is a pipe, a socket, a device, no possible name, or a large file that is
    almost only holes. What does not exist, and a folder, is left to the caller; nothing is opened that
    blocks.
    """
    try:
        status = Path(path).stat()
    except ValueError as error:  # a NUL
        raise UserError(
            f"{printable(path)} is no name that a file can have: it holds a NUL character"
        ) from error
    except FileNotFoundError:
        return
    except OSError as error:  # a loop of links, a name that is too long, a file where a folder should be
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}") from error
    what = special_kind(status.st_mode)
    if what is not None and not stat.S_ISDIR(status.st_mode):
        raise UserError(
            f"{printable(path)} is {what}, not a file: copy its content into a file, and give that"
        )
    if stat.S_ISREG(status.st_mode) and status.st_size >= LARGE:
        _refuse_holes(Path(path), status.st_size)


def special_kind(mode: int) -> str | None:
    """What a file of this mode (st_mode) is, such as a pipe or a folder; None for an ordinary file."""
    return next((what for is_kind, what in _KINDS if is_kind(mode)), None)


def _refuse_holes(path: Path, size: int) -> None:
    """Raises UserError where less than a tenth of the file is on the disk."""
    try:
        with path.open("rb") as file:
            stored = _stored_bytes(file.fileno(), size)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if stored < _LEAST_SHARE * size:
        raise UserError(
            f"{printable(path)} is a file of holes, {stored:,} bytes on the disk of its {size:,}: its "
            "download or copy was not completed, get it again"
        )


def _stored_bytes(descriptor: int, size: int) -> int:
    """Bytes that are on the disk; all of them on a file system that keeps no account of holes, and in a file
    of very many pieces."""
    stored = place = 0
    for _ in range(_MOST_PIECES):
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError:  # no data up to the end, or no account of it
            return stored
        place = os.lseek(descriptor, begin, os.SEEK_HOLE)
        stored += place - begin
        if place >= size:
            return stored
    return size
