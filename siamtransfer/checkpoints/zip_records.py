"""The records of a zip file of PyTorch, from the file's directory: bounds that hold before any is read.

PyTorch stores its records as they are. A directory may say anything: a record that unpacks to a thousand
times its size, two records in one place, more records than anything could open.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from siamtransfer.checkpoints.pickle_values import TooMuch
from siamtransfer.utils.zip_files import open_zip

MOST_PICKLED = 2**27
"""Bytes of a file's pickles, which hold names and numbers but no tensors."""
MOST_DIRECTORY = 2**23
"""Bytes of a zip file's directory; a record takes about a hundred."""
MOST_RECORDS = 100_000
"""Records of a file, of which each tensor has one."""
MOST_PICKLES = 100
"""Records that are pickles; a file of PyTorch has one."""
MOST_UNPACKED = 8
"""How many times its size a file with compressed records may unpack to, beyond SPARE bytes."""
SPARE = 2**24
_END, _END_SIZE = b"PK\x05\x06", 22
_END_64, _UNKNOWN = b"PK\x06\x06", 0xFFFFFFFF
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def refuse_records(path: Path) -> bool:
    """Whether all records of a zip file are stored as they are, so that they can be mapped into memory.

    Raises:
        TooMuch: they would unpack to more than the bounds, or are encrypted or packed in another way.
        zipfile.BadZipFile: the directory contradicts itself.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    refuse_directory(path)
    with open_zip(path) as archive:
        records = archive.infolist()
    if len(records) > MOST_RECORDS:
        raise TooMuch(f"is a zip file of {len(records):,} records")
    for record in records:
        if record.flag_bits & _ENCRYPTED:
            raise TooMuch(f"is an encrypted zip file (its record {record.filename!r})")
        if record.compress_type not in _METHODS:
            raise TooMuch(
                f"is a zip file whose record {record.filename!r} is packed by a method that PyTorch has not"
            )
        if record.compress_type == zipfile.ZIP_STORED and record.compress_size != record.file_size:
            raise zipfile.BadZipFile(f"its directory gives two sizes for {record.filename!r}")
    if sum(record.compress_size for record in records) > size:
        raise zipfile.BadZipFile("its directory names more bytes than the file has")
    unpacked = sum(record.file_size for record in records)
    if unpacked > MOST_UNPACKED * size + SPARE:
        raise TooMuch(f"is a zip file of {size:,} bytes that would unpack to {unpacked:,}")
    pickles = [record.file_size for record in records if record.filename.endswith(".pkl")]
    if sum(pickles) > MOST_PICKLED or len(pickles) > MOST_PICKLES:
        raise TooMuch(f"holds {len(pickles):,} pickles of {sum(pickles):,} bytes beside its tensors")
    return all(record.compress_type == zipfile.ZIP_STORED for record in records)


def refuse_directory(path: Path) -> None:
    """Raises TooMuch where the directory of a zip file, which is read as a whole, is too large.

    Raises:
        zipfile.BadZipFile: there is none.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(-min(size, 2**16 + _END_SIZE + 2**10), os.SEEK_END)
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or end + _END_SIZE > len(tail):
        raise zipfile.BadZipFile("File is not a zip file")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    end_64 = tail.rfind(_END_64, 0, end)
    if end_64 >= 0:
        length = max(
            length if length != _UNKNOWN else 0, int.from_bytes(tail[end_64 + 40 : end_64 + 48], "little")
        )
    if length > MOST_DIRECTORY:
        raise TooMuch(f"is a zip file with a directory of {length:,} bytes")
