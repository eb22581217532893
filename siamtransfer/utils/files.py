"""Atomic writes, digests of files, texts with a checksum beside them, and outputs that are refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from siamtransfer.utils.disk_errors import cannot_write
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import read_own_bytes
from siamtransfer.utils.temporary import clean_beside, create_beside, failed_write, temporary_path


class _Rename(NamedTuple):
    """A file that gets its name: `hidden` becomes `path`, whose old content stays as `kept` until all have
    theirs."""

    path: Path
    hidden: Path
    kept: Path | None


class FileGroup:
    """New binary files, to write and read, that appear under their names together, or none of them does.

    The bytes go to hidden files in the same folders (so a rename does not cross a disk). At the end of the
    `with` block all are flushed with fsync, and only then renamed: the file that was opened first appears
    last. Where the block or a later rename fails, every path has its old content, or is absent as before.
    A process that is killed between two renames leaves the later opened ones, so what names the others has
    to be opened first.

    Where the disk has refused bytes, the block ends with that error, whatever the library that wrote them
    made of it.
    """

    def __init__(self) -> None:
        self._files: list[tuple[Path, IO[bytes]]] = []

    def open(self, path: str | Path) -> IO[bytes]:
        """The file that becomes `path`. What killed writers of it have left beside it is removed.

        Raises:
            UserError: the folder cannot be written or the disk is full; names the path and the free space.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            clean_beside(path)
            file = create_beside(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._files.append((path, file))
        return file

    def __enter__(self) -> FileGroup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *more: object) -> None:
        try:
            if error is None:
                self._publish()
        except OSError as failed:
            error = failed
        finally:
            refused = [(path, why) for path, file in self._files if (why := failed_write(file))]
            for _, file in self._files:
                with contextlib.suppress(OSError):  # of bytes that found no room
                    file.close()
                with contextlib.suppress(OSError):
                    Path(file.name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(self._named_by(error), error) from error
        if isinstance(error, Exception) and refused:  # a library's, such as torch.save's on a full disk
            raise cannot_write(*refused[0]) from refused[0][1]

    def _publish(self) -> None:
        for _, file in self._files:
            file.flush()
            os.fsync(file.fileno())
        published: list[_Rename] = []
        try:
            for path, file in reversed(self._files):
                kept = _second_name(path) if len(self._files) > 1 else None
                published.append(_Rename(path, Path(file.name), kept))
                published[-1].hidden.replace(path)
        except BaseException:
            _take_back(published)
            raise
        for rename in published:
            if rename.kept is not None:
                rename.kept.unlink(missing_ok=True)
        for folder in {rename.path.parent for rename in published}:
            _sync_folder(folder)

    def _named_by(self, error: OSError) -> Path:
        """The file that an error is about: the one whose hidden name it has, else the main one."""
        named = (path for path, file in self._files if error.filename in (file.name, Path(file.name)))
        return next(named, self._files[0][0])


def _second_name(path: Path) -> Path | None:
    """A hidden second name of a file, under which it stays when the first is given to another; None where
    there is no such file, or the disk has no links."""
    name = temporary_path(path)
    try:
        os.link(path, name)
    except OSError:
        return None
    return name


def _take_back(published: list[_Rename]) -> None:
    """Undoes renames, of which the last may have failed: what was there before has its name again."""
    for path, hidden, kept in published:
        with contextlib.suppress(OSError):
            if not os.path.lexists(hidden):  # it was renamed
                path.unlink() if kept is None else kept.replace(path)
            elif kept is not None:
                kept.unlink()


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Opens a new binary file, to write and read, that appears under `path` once it is complete and on disk;
    see `FileGroup`. The hidden file is created by this call or not at all (O_EXCL), so two processes never
    write into one file.

    Raises:
        UserError: the folder cannot be written or the disk is full; names the path and the free space.
    """
    with FileGroup() as files:
        yield files.open(path)


def write_all(descriptor: int, content: bytes | bytearray) -> None:
    """Writes all bytes to an open file. A disk that is nearly full takes a part first, and refuses the rest
    then.

    Raises:
        OSError: they cannot be written.
    """
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


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
    content = read_own_bytes(path)
    beside = checksum_path(path)
    try:
        expected = read_own_bytes(beside).split()
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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
                lone = file != document and not document.exists()
                what = f" without {document.name}: features, or what a killed program has left" * lone
                raise UserError(f"{file} exists{what}; choose another --record or remove it first")
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
