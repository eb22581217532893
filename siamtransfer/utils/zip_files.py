"""The checksums of zip files: PyTorch's checkpoints and NumPy's .npz are such.

A zip file holds the CRC-32 of each of its records. Neither torch.load nor, for an array whose header is
damaged, numpy.load compares it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

BLOCK = 2**20


def open_zip(path: str | Path | IO[bytes]) -> zipfile.ZipFile:
    """The zip file at `path`, whose directory has been read.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: it is no zip file, or its directory is damaged.
    """
    try:
        return zipfile.ZipFile(path)
    except (NotImplementedError, UnicodeError) as error:  # the version of a record, and its name
        raise zipfile.BadZipFile(str(error)) from error


def verify_zip(path: str | Path | IO[bytes]) -> None:
    """Compares the checksum of every record of a zip file.

    A file in which every checksum is zero was written without them, which PyTorch allows; it is not checked.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: it is no zip file, or a record is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if not any(record.CRC for record in records):
                return
            if len({record.filename for record in records}) != len(records):
                raise zipfile.BadZipFile("two records have one name")
            for record in records:
                _read_through(archive, record)
    except (OSError, zipfile.BadZipFile):
        raise
    except Exception as error:  # a damaged header leads to a dozen types: NotImplementedError, zlib.error ...
        raise zipfile.BadZipFile(str(error) or type(error).__name__) from error


def _read_through(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    """Reads a record to its end, where zipfile compares the checksum."""
    with archive.open(record) as stream:
        while stream.read(BLOCK):
            pass
