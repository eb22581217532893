"""Hidden files and folders beside their place, which they take when they are complete.

A name is `.OUT.KERNEL and a random number.tmp`. Whoever writes one holds a lock on it (flock), which the
kernel drops when the writer ends for any reason; so the next writer of the same OUT can tell what a killed
one has left from what a living one is writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from siamtransfer.utils.disk_errors import cannot_write

_TEMPORARY = re.compile(r"\.(.+)\.(\d+|[0-9a-f]{16})\.tmp")  # older versions took the number of the process
_TRIES = 100
ABANDONED_SECONDS = 24 * 3600
"""From when on a file that no lock of this kernel can speak for, since another machine or an earlier start of
this one has written it, counts as left behind. A living writer changes it more often."""


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` for a file or folder that becomes `path` once it is complete.

    It says which kernel writes it, and is random: a process number is no name of a process, since every
    container and every machine that shares the disk has its own numbers.
    """
    return path.with_name(f".{path.name}.{this_kernel()}{secrets.token_hex(4)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file name is one of `temporary_path`, which a killed process has left."""
    return _TEMPORARY.fullmatch(name) is not None


@functools.cache
def this_kernel() -> str:
    """Eight hexadecimal digits for the running kernel: the same in all containers of a machine, another one
    after the machine was started anew."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        name = socket.gethostname()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def create_beside(path: Path) -> IO[bytes]:
    """A new file under a name of `temporary_path`, to write and read, locked as that of a living writer.

    A name that exists belongs to another process (O_EXCL), and so does a file that another process has
    locked or removed as soon as it was there.

    Raises:
        OSError: it cannot be created.
    """
    for _ in range(_TRIES):
        try:
            file = _open_new(temporary_path(path))
        except FileExistsError:
            continue
        if _lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()
    return _open_new(temporary_path(path))


def failed_write(file: IO[bytes]) -> OSError | None:
    """The error with which the disk has refused bytes of a file of `create_beside`, if it has: libraries that
    write into the file may raise another one instead."""
    raw = getattr(file, "raw", None)
    return raw.failure if isinstance(raw, _NewFile) else None


class _NewFile(io.FileIO):
    """A new file that remembers why its disk took no more."""

    failure: OSError | None = None

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError as error:
            self.failure = error
            raise


def _open_new(path: Path) -> IO[bytes]:
    return io.BufferedRandom(_NewFile(str(path), "x+b"))


@contextlib.contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """A new hidden folder beside `out`, which is gone after the block unless the block gave it another name.

    Raises:
        UserError: it cannot be written; an OSError of the block becomes one, too.
    """
    clean_beside(out)
    folder = temporary_path(out)
    descriptor = None
    try:
        folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY)
        _lock(descriptor)
        yield folder
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def clean_beside(path: Path) -> None:
    """Removes what killed writers of `path` have left beside it, never what a living one writes."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is not None and match[1] == path.name:
                _remove_abandoned(path.parent / entry.name, match[2])


def clean_folders(*folders: Path) -> int:
    """Removes what killed writers have left in folders, whatever it was to become; returns how many files and
    folders that were."""
    removed = 0
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                match = _TEMPORARY.fullmatch(entry.name)
                if match is not None:
                    _remove_abandoned(folder / entry.name, match[2])
                    removed += not os.path.lexists(folder / entry.name)
    return removed


def _remove_abandoned(path: Path, writer: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            free = _lock(descriptor)
            here = writer.startswith(this_kernel()) and len(writer) == 16
            is_certain = free is True and here
            if free is False or (not is_certain and _age(descriptor) < ABANDONED_SECONDS):
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _age(descriptor: int) -> float:
    """The seconds since a file, or a folder's list of names, was changed."""
    return time.time() - os.fstat(descriptor).st_mtime


def _lock(descriptor: int) -> bool | None:
    """Locks an open file or folder: True; False where another process holds it; None where the disk has no
    locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
