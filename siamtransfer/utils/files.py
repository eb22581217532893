"""Atomic writes, digests of files, texts with a checksum beside them, and the lock of a run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from siamtransfer.utils.errors import UserError

_TEMPORARY = re.compile(r"\..+\.(\d+|[0-9a-f]{16})\.tmp")  # older versions took the number of the process
_TRIES = 100


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` for a file or folder that becomes `path` once it is complete.

    It is random: a process number is no name of a process, since every container and every machine that
    shares the disk has its own numbers.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file name is one of `temporary_path`, which a killed process has left."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens a new binary file, to write and read, that appears under `path` once it is complete and on disk.

    The bytes go to a hidden file in the same folder (so the rename does not cross a disk), are flushed with
    fsync and renamed to `path`; the folder is synchronised too. The hidden file is created by this call or
    not at all (O_EXCL), so two processes never write into one file. If the body raises, `path` keeps its
    old content and the hidden file is removed.

    Raises:
        UserError: the folder cannot be written or the disk is full; names the path and the free space.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _create_beside(path) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}{_free_space(path.parent)}; "
            "free some space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _create_beside(path: Path) -> IO[bytes]:
    """A new file under a name of `temporary_path`; one that exists belongs to another process."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(FileExistsError):
            return temporary_path(path).open("x+b")
    return temporary_path(path).open("x+b")


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_checked_text(path: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` and its SHA-256 beside it, as `sha256sum` writes it.

    The checksum is removed before and written after the text, so a process killed between leaves a text
    without one, which `read_checked_text` reads as an older version's.
    """
    path = Path(path)
    beside = checksum_path(path)
    with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)
    write_text(path, text)
    write_text(beside, f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n")


def read_checked_text(path: str | Path) -> str:
    """The text that `write_checked_text` wrote; one without a checksum beside it is read as it is.

    Raises:
        OSError: the text cannot be read.
        ValueError: it is not the text that was written; the message is the rest of a sentence that begins
            with the file's name.
    """
    path = Path(path)
    content = path.read_bytes()
    beside = checksum_path(path)
    try:
        expected = beside.read_bytes().split()
    except FileNotFoundError:
        expected = None
    if expected is not None and expected[:1] != [hashlib.sha256(content).hexdigest().encode()]:
        raise ValueError(f"is damaged: its bytes do not match the checksum in {beside.name}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError("is damaged: it is no UTF-8 text") from error


def checksum_path(path: Path) -> Path:
    """Where `write_checked_text` keeps the checksum of `path`."""
    return path.with_name(f"{path.name}.sha256")


def digest_of_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunLock:
    """The exclusive use of a run folder by one process, until `release` or the end of the process.

    `what` is the folder's name in messages, `option` the one that chooses another.

    A POSIX record lock: the kernel drops it when its owner ends for any reason, so the lock file of a dead
    process blocks nothing, and data-loader workers (forked) do not inherit it.

    Raises:
        UserError: the folder cannot be written, or another running process holds it.
    """

    def __init__(self, folder: str | Path, *, what: str = "run folder", option: str = "--run.dir"):
        folder = Path(folder)
        self.path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+")
        except OSError as error:
            raise UserError(
                f"cannot write to the {what} {folder}: {error.strerror}; choose another with {option}"
            ) from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                self._file.close()
                raise UserError(
                    f"the disk of {folder} cannot lock files ({error.strerror}); choose another {option}"
                ) from error
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"the {what} {folder} is in use by {owner}; stop that run or choose another {option}"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Frees the folder; the lock file stays and has no effect."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_space(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free)"
    except OSError:
        return ""


def refuse_outputs(source: str, outputs: Iterable[Path], *, force: bool) -> None:
    """Raises UserError before any work if an output is a folder, is the input `source`, exists and `force` is
    false, or lies where nothing can be written."""
    for path in outputs:
        if not path.exists():
            _refuse_unwritable(str(path), path)
            continue
        if path.is_dir():
            raise UserError(f"{path} is a folder; choose another name for the output")
        if Path(source).exists() and path.samefile(source):
            raise UserError(
                f"{path} is the checkpoint itself, which is never overwritten; choose another name"
            )
        if not force:
            raise UserError(f"{path} exists; choose another name or replace it with --force")


def beside_path(record: Path, name: str) -> Path:
    """The file OUT.NAME.json of a further record beside OUT.json."""
    return record.with_suffix(f".{name}.json")


def refuse_record(path: str | None, beside: Iterable[str] = ()) -> None:
    """Raises UserError before any work when `publish` could not write OUT.json and OUT.npz, or would replace
    one: a measurement, or somebody's features, is never overwritten. `beside` names further records."""
    if path is None:
        return
    out = Path(path)
    if out.suffix != ".json":
        raise UserError(f"--record {out} must end in .json")
    for document in (out, *(beside_path(out, name) for name in beside)):
        for file in (document, document.with_suffix(".npz")):
            if file.exists():
                raise UserError(f"{file} exists; choose another --record or remove it first")
    _refuse_unwritable(f"--record {out}", out)


def _refuse_unwritable(name: str, out: Path) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UserError(f"{name} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{name} cannot be written: the folder {folder} is read-only for you")


def refuse_out_folder(out: Path) -> None:
    """Raises UserError where `out` is a file, or a folder that holds something: files of two pieces of work
    never lie in one folder."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, and the output is a folder: name a new one")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"the folder {out} is not empty: name a new one")
