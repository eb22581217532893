"""Files of text that a user gives, read with a bound: configurations, records, lists of runs.

Only ordinary files are read (`regular_files` says why), and only those that are not larger than any of their
kind.
"""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import printable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


MOST_OF_OWN = 2**28
"""Bytes of a file that a program of ours keeps; that of a suite of ten thousand cells has some million."""


def read_own_bytes(path: Path) -> bytes:
    """The content of a file that a program of ours has written.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device, or larger than any; the message is the rest of a sentence that
            begins with the file's name.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError("is damaged: it is a pipe or a device, not a file")
    if status.st_size > MOST_OF_OWN:
        raise ValueError(f"is damaged: it has {status.st_size:,} bytes, more than was ever written there")
    return path.read_bytes()


def read_small_file(path: str | Path, most: int) -> bytes:
    """The content of an ordinary file of at most `most` bytes.

    Raises:
        UserError: there is no such file, it is a folder, a pipe or a device, it is larger, or it cannot be
            read.
    """
    where = printable(path)
    refuse_special(path)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise UserError(
                    f"{where} has {size:,} bytes, and a file of this kind has at most {most:,}: it is "
                    "something else"
                )
            content = file.read(most + 1)  # files of /proc have no size
    except IsADirectoryError as error:
        raise UserError(f"{where} is a folder, and a file is needed") from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from error
    if len(content) > most:
        raise UserError(f"{where} has more than the {most:,} bytes that a file of this kind has at most")
    return content


def read_small_text(path: str | Path, most: int) -> str:
    """The text of an ordinary file of at most `most` bytes, in UTF-8 with or without its mark.

    Raises:
        UserError: see `read_small_file`; or it is in another encoding, or no text.
    """
    return text_of(read_small_file(path, most), printable(path))


def marked_encoding(content: bytes) -> str | None:
    """The encoding that the byte-order mark at the beginning of a text says, by a name with which Python
    leaves the mark out of the text: utf-8-sig, utf-16 or utf-32; None without a mark."""
    return next((encoding for mark, encoding in _MARKS if content.startswith(mark)), None)


def text_of(content: bytes, where: str) -> str:
    """The bytes of the file `where` as text.

    Raises:
        UserError: they are no UTF-8; names the encoding where they say it.
    """
    marked = marked_encoding(content)
    if marked is not None and marked != "utf-8-sig":
        raise UserError(f"{where} is text in {marked.upper()}: save it as UTF-8")
    if b"\0" in content:
        raise UserError(f"{where} is no text, or text in UTF-16: it holds bytes of zero; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} is no UTF-8 text: line {line} holds the byte 0x{content[error.start]:02x}; save it as "
            "UTF-8"
        ) from error
