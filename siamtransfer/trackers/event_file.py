"""One file of TensorBoard's events a run, however often the run goes on.

torch's writer begins a file at every start, writes it in a thread of its own, and prints that thread's
traceback where the disk is full. This one appends to the file that is there, and an error is the caller's.
The format is that of TFRecord: the length (uint64) and its checksum, the event and its checksum.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siamtransfer.utils.files import write_all

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

_VERSION = "brain.Event:2"
_HEADER = struct.Struct("<QI")  # length of the event, its checksum
_CHECKSUM = struct.Struct("<I")


class EventFile:
    """The newest file of events in `folder`, to append to, or a new one.

    A record that a killed process has left half-written is cut off; a file whose records cannot be followed
    to the end is left as it is, and a new one begins.

    Raises:
        OSError: (also from `append`) the disk is full or has failed.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(path for path in folder.iterdir() if "tfevents" in path.name and path.is_file())
        length = _whole_records(files[-1]) if files else None
        newest = files[-1].name if files else ""
        self.path = files[-1] if length is not None else folder / _new_name(newest)
        self._length = length or 0
        self._file: int | None = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666
        )
        os.ftruncate(self._file, self._length)

    def append(self, events: Sequence[Event]) -> None:
        """Writes events, with the present time; all are in the file when this returns, or none is."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

        now, records = time.time(), bytearray()
        begin = [] if self._length else [Event(file_version=_VERSION)]
        for event in (*begin, *events):
            event.wall_time = now
            records += _record(event.SerializeToString(), masked_crc32c)
        assert self._file is not None
        try:
            write_all(self._file, records)
        except OSError as error:
            error.filename = str(self.path)
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._length)
            raise
        self._length += len(records)

    def close(self) -> None:
        """Closes the file; a second call changes nothing."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)


def _new_name(newest: str) -> str:
    """A name behind `newest` in the order in which TensorBoard reads files."""
    begun = int(time.time())
    stated = newest.partition("tfevents.")[2].partition(".")[0]
    if stated.isdigit():
        begun = max(begun, int(stated) + 1)
    return f"events.out.tfevents.{begun:010d}.{socket.gethostname()}.{os.getpid()}.0"


def _record(content: bytes, checksum: Callable[[bytes], int]) -> bytes:
    length = struct.pack("<Q", len(content))
    return b"".join((length, _CHECKSUM.pack(checksum(length)), content, _CHECKSUM.pack(checksum(content))))


def _whole_records(path: Path) -> int | None:
    """The bytes of the whole records of a file; None where the length of one does not match its checksum."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    known: dict[bytes, int] = {}  # most lengths come again
    position, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while size - position >= _HEADER.size:
            header = file.read(_HEADER.size)
            length, stated = _HEADER.unpack(header)
            if header[:8] not in known:
                known[header[:8]] = masked_crc32c(header[:8])
            if known[header[:8]] != stated:
                return None
            end = position + _HEADER.size + length + _CHECKSUM.size
            if end > size:
                break
            file.read(length + _CHECKSUM.size)
            position = end
    return position
