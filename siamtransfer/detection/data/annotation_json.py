"""Files of annotations in JSON, which may have a gigabyte, read with bounded work.

The files of COCO, LVIS and their like have some hundred thousand small entries. What is one huge value (a
number of a million digits, a text without end, brackets in brackets) or consists of empty brackets is found
before it is parsed, for the parsed form takes up to twenty times the bytes.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.json_file import unique_keys
from siamtransfer.utils.small_files import text_of
from siamtransfer.utils.text import printable

MOST_BYTES = 2**34
"""Of a file; the largest public one (Objects365) has 6 GB."""
MOST_OF_A_VALUE = 2**24
"""Bytes without one of the signs that every entry has; the outline of an object has some thousand."""
EXTRA_BRACKETS, BYTES_A_BRACKET = 1_000_000, 8
"""More brackets than EXTRA_BRACKETS and one in BYTES_A_BRACKET bytes are no annotations: the shortest
annotation has two in 50 bytes."""
_SIGNS = (b'"', b":", b",")


def load_json(path: Path, needed: str, otherwise: str) -> tuple[Any, bytes]:
    """The content of a JSON file and its bytes. NaN and infinities, which JSON has not, are left to the check
    of the value that is needed.

    Raises:
        UserError: it cannot be read (a sentence that begins with `needed` and ends with what to do
            `otherwise` than to complete the download), or is no JSON; it has a key twice in one object, or is
            of another shape than annotations are.
    """
    where = printable(path)
    try:
        data = _read(path, where)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{needed} {where}, which cannot be read ({reason}); complete the download, or {otherwise}"
        ) from error
    return _parsed(text_of(data, where), where), data


def _read(path: Path, where: str) -> bytes:
    """The bytes of an ordinary file, once a look at them has found entries."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise UserError(f"{where} is {kind}; name a file of annotations")
        if status.st_size > MOST_BYTES:
            raise UserError(
                f"{where} has {status.st_size:,} bytes, more than the {MOST_BYTES:,} that are read; give a "
                "file of fewer images"
            )
        if status.st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_signs(content, where)
        return file.read()


def _check_signs(content: mmap.mmap, where: str) -> None:
    """Raises UserError where MOST_OF_A_VALUE bytes have not the signs that every entry has."""
    for start in range(0, len(content) - MOST_OF_A_VALUE, MOST_OF_A_VALUE):
        if any(content.find(sign, start, start + MOST_OF_A_VALUE) < 0 for sign in _SIGNS):
            raise UserError(
                f"{where} has a value of more than {MOST_OF_A_VALUE:,} bytes behind byte {start:,}, and no "
                "annotation is as long; restore the file"
            )


def _parsed(text: str, where: str) -> Any:
    if not text.strip():
        raise UserError(f"{where} is empty; restore the file")
    brackets = text.count("[") + text.count("{")
    if brackets > max(EXTRA_BRACKETS, len(text) // BYTES_A_BRACKET):
        raise UserError(f"{where} has {brackets:,} brackets in {len(text):,} characters; restore the file")
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[error.pos] in "[{":
            cure = "it holds several values one behind the other, as JSON lines do: give one file of COCO's"
        else:
            cure = "it may be cut off: restore it"
        raise UserError(f"{where} is no JSON ({error}); {cure}") from error
    except ValueError as error:
        raise UserError(f"{where} cannot be used: it {_reason(error)}; restore it") from error
    except RecursionError:
        raise UserError(f"{where} is nested deeper than annotations are; restore the file") from None


def _reason(error: ValueError) -> str:
    """What is wrong, as the end of a sentence; Python's own words for a number of too many digits name a
    function."""
    text = str(error)
    return text if text.startswith("holds ") else "holds a number of thousands of digits"
