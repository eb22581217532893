"""A look at an .npz file before NumPy reads it: what its arrays say of themselves, and what they would take.

NumPy believes the header of an array: it asks for the memory of the shape that stands there, whatever the
file holds, reads a header of gigabytes, and unpacks a megabyte of zeros to a gigabyte.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np

from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import printable
from siamtransfer.utils.zip_files import open_zip

MOST_MEMBERS = 4096
MOST_UNPACKED = 2**28
"""Bytes that a file may unpack to, whatever its own size; and beyond them"""
MOST_TIMES = 50
"""times its own size: features are not packed that much."""
_LONGEST_HEADER = 10_000  # bytes, as NumPy has it
_LONGEST_LIST = 2**20  # bytes, in which an archive names its members


def survey_arrays(path: str | Path, *, mapped: Collection[str] = ()) -> None:
    """Looks at the arrays of an .npz, without reading one; those of the names in `mapped` may be larger than
    the memory. What is no zip archive is left to the caller.

    Raises:
        UserError: the file is a pipe, a device or almost only holes.
        ValueError: an array cannot be what it says, is packed in a way that NumPy does not write, or would
            take more memory than there is; the message is the rest of a sentence on the file.
        OSError, zipfile.BadZipFile: the file cannot be read.
    """
    refuse_special(path)
    if not zipfile.is_zipfile(path):
        return
    _refuse_long_list(Path(path))
    with open_zip(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"it has more than the {MOST_MEMBERS:,} arrays that are read")
        names = [member.filename for member in members]
        if len(set(names)) != len(names):
            raise ValueError("two of its arrays have one name")
        unpacked = sum(member.file_size for member in members)
        size = Path(path).stat().st_size
        if unpacked > max(MOST_UNPACKED, MOST_TIMES * size):
            raise ValueError(
                f"its {size:,} bytes would unpack to {unpacked:,}: write it unpacked, by numpy.savez"
            )
        for member in members:
            _look_at(archive, member)
        inside = sum(member.file_size for member in members if member.filename not in mapped)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if inside > memory:
            raise ValueError(f"its arrays take {inside:,} bytes, and this machine has {memory:,} of memory")


def _refuse_long_list(path: Path) -> None:
    """Raises ValueError for an archive with a long list of members; zipfile would make an object of each
    before anything can be asked."""
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is not None and (int(end[4]) > MOST_MEMBERS or int(end[5]) > _LONGEST_LIST):
        raise ValueError(f"it has more than the {MOST_MEMBERS:,} arrays that are read")


def _look_at(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raises ValueError for a member that NumPy does not write, or whose array is not as large as it says."""
    name = printable(member.filename.removesuffix(".npy"))
    if member.flag_bits & 1:
        raise ValueError(f"its array {name} is encrypted: write it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its array {name} is packed in a way that numpy does not read: use numpy.savez")
    try:
        with archive.open(member) as file:
            shape, dtype, begin = _header_of(file)
    except (OSError, zipfile.BadZipFile):
        raise
    except ValueError as error:
        raise ValueError(f"its array {name} is none or damaged: {error}") from error
    except Exception as error:  # a damaged place leads to a dozen types, see zip_files
        raise ValueError(f"its array {name} is damaged: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"its array {name} holds Python objects, which are not read")
    stated, held = math.prod(shape) * dtype.itemsize, member.file_size - begin
    if stated != held or (not dtype.itemsize and math.prod(shape) > 0):
        raise ValueError(
            f"its array {name} says {list(shape)} of {dtype}, which is {stated:,} bytes, and holds {held:,}"
        )


def _header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and type of an array that begins in `file`, and the bytes before its numbers.

    Raises:
        ValueError: it is no array of NumPy's; the message is a reason.
    """
    prefix = np.lib.format.MAGIC_PREFIX
    magic = file.read(len(prefix) + 2)
    if not magic.startswith(prefix) or len(magic) < len(prefix) + 2:
        raise ValueError("it does not begin as one")
    version = (magic[-2], magic[-1])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {magic[-2]}.{magic[-1]} of the format is not known")
    kind = "<H" if version == (1, 0) else "<I"
    words = file.read(struct.calcsize(kind))
    if len(words) < struct.calcsize(kind):
        raise ValueError("it ends in its header")
    length = int(struct.unpack(kind, words)[0])
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    text = file.read(length)
    begin = len(magic) + len(words) + len(text)
    if version == (3, 0):  # version 2 in UTF-8, for names of fields
        text = text.decode("utf-8").encode("latin-1", "replace")
        words = struct.pack(kind, len(text))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(io.BytesIO(words + text), max_header_size=_LONGEST_HEADER)
    except Exception as error:  # NumPy reads the header as an expression of Python
        raise ValueError("its header is not NumPy's") from error
    if any(not 0 <= length < 2**63 for length in shape):
        raise ValueError(f"its shape is {list(shape)}")
    return tuple(map(int, shape)), dtype, begin
