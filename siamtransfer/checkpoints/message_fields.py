"""The outermost fields of a protobuf message, read without its schema.

A field is a key, a varint of `number << 3 | wire type`, and a value: a varint (0), 8 bytes (1), a length and
so many bytes (2) or 4 bytes (5). https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from typing import IO, NamedTuple

VARINT, BYTES = 0, 2
_FIXED = {1: 8, 5: 4}  # length in bytes by wire type
_MOST_FIELDS = 2**18
_KEPT = 256


class Field(NamedTuple):
    """The first field of a number: its wire type, the value of a varint, and the first bytes of BYTES."""

    wire_type: int
    value: int = 0
    beginning: bytes = b""


def fields_of(file: IO[bytes]) -> dict[int, Field]:
    """The fields of the message that fills the file, by number; empty where the file is no such message.

    Values are skipped, so that a message of gigabytes takes no longer than its number of fields.
    """
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    fields: dict[int, Field] = {}
    for _ in range(_MOST_FIELDS):
        if file.tell() == end:
            return fields
        field = _read_field(file, end)
        if field is None:
            return {}
        fields.setdefault(*field)
    return fields


def _read_field(file: IO[bytes], end: int) -> tuple[int, Field] | None:
    """The next field with its number; None where there is none."""
    key = _read_varint(file)
    if key is None or key >> 3 == 0:
        return None
    number, wire_type = key >> 3, key & 7
    if wire_type == VARINT:
        value = _read_varint(file)
        return None if value is None else (number, Field(VARINT, value))
    length = _read_varint(file) if wire_type == BYTES else _FIXED.get(wire_type)
    if length is None or file.tell() + length > end:
        return None
    after = file.tell() + length
    beginning = file.read(min(length, _KEPT))
    file.seek(after)
    return number, Field(wire_type, 0, beginning)


def _read_varint(file: IO[bytes]) -> int | None:
    """A number in groups of seven bits, the lowest first; None where it does not end within 64 bits."""
    number = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return number
    return None
