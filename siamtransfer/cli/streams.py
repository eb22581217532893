"""The standard streams of a process: closed, full, of another encoding, or a pipe without reader."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TextIO


class _Stdout(io.TextIOWrapper):
    """Standard output that remembers the error for which it took not all, as a full disk's."""

    lost: OSError | None = None

    def __init__(self, like: TextIO):
        file = os.fdopen(like.fileno(), "wb", closefd=False)
        super().__init__(file, like.encoding, "backslashreplace", line_buffering=like.isatty())

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.lost = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.lost = error
            raise


def open_streams() -> None:
    """Makes the standard streams such that a program can write to them.

    A stream that is closed is opened to nothing: else the next file that is opened would get its number, and
    what is printed. Characters that the encoding of a stream lacks are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = _nothing()
    elif isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:  # no test's or notebook's
        sys.stdout = _Stdout(sys.stdout)
    sys.stderr = sys.stderr or _nothing()  # which escapes by itself


def lost_stdout() -> OSError | None:
    """The error for which stdout took not all that was printed, None where it did. After an error stdout
    leads nowhere, so that the end of the process does not meet it again."""
    error = getattr(sys.stdout, "lost", None) or _flush(sys.stdout)
    if error is not None:
        _lead_nowhere(sys.stdout)
    return error


def drop_stderr() -> None:
    """Leads stderr nowhere where it takes no messages, for the end of the process would meet the error."""
    if _flush(sys.stderr) is not None:
        _lead_nowhere(sys.stderr)


def _flush(stream: TextIO) -> OSError | None:
    try:
        stream.flush()
    except OSError as error:
        return error
    return None


def _lead_nowhere(stream: TextIO) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
    with contextlib.suppress(OSError):
        stream.flush()


def _nothing() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
