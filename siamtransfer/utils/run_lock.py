"""The exclusive use of a folder by one process, and the certainty that it still is that folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from siamtransfer.utils.disk_errors import cure, why
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

LOCK = "lock"
_TRIES = 20


class RunLock:
    """The exclusive use of a run folder by one process, until `release` or the end of the process.

    `what` is the folder's name in messages, `option` the one that chooses another.

    A POSIX record lock: the kernel drops it when its owner ends for any reason, so the lock file of a dead
    process blocks nothing, and data-loader workers (forked) do not inherit it.

    Attributes:
        path: the lock file.
        was_empty: whether the folder was new, or held nothing but a lock.

    Raises:
        UserError: the folder cannot be written, or another running process holds it.
    """

    def __init__(self, folder: str | Path, *, what: str = "run folder", option: str = "--run.dir"):
        self.folder, self._what, self._option = Path(folder), what, option
        self.path = self.folder / LOCK
        self._created: list[Path] = []
        try:
            self._file = self._take()
            self._place = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)  # so its inode is not used again
            self.was_empty = _names(self.folder) <= {LOCK}
        except OSError as error:
            self._remove_created()
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        other, reason = f"choose another with {self._option}", why(self.path, error)
        help_ = cure(self.folder, error).replace("choose another folder", other)
        if other not in help_:
            help_ = f"{help_}, or {other}"
        return UserError(f"cannot write to the {self._what} {self.folder}: {reason}; {help_}")

    def _take(self) -> IO[str]:
        """The locked file. One that its last owner has removed in the meantime is opened anew."""
        for _ in range(_TRIES):
            _create_folders(self.folder, self._created)
            is_new = not os.path.lexists(self.path)
            file = self.path.open("a+")
            try:
                if is_new and self.path not in self._created:
                    self._created.append(self.path)
                self._claim(file)
                if _is_at(file.fileno(), self.path):
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                    file.flush()
                    return file
            except BaseException:
                with contextlib.suppress(OSError):  # of what could not be flushed
                    file.close()
                raise
            file.close()
        raise UserError(
            f"the {self._what} {self.folder} is removed again and again: choose another {self._option}"
        )

    def _claim(self, file: IO[str]) -> None:
        folder = self.folder
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                self._remove_created()
                raise UserError(
                    f"the disk of {folder} cannot lock files ({error.strerror}); "
                    f"choose another {self._option}"
                ) from error
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(
                f"the {self._what} {folder} is in use by {owner}; stop that run "
                f"or choose another {self._option}"
            ) from error

    def require_place(self) -> None:
        """Makes sure that the folder is still the one that was locked, before something is written into it.

        Where only the file `lock` was removed, nobody else has taken the folder, and it is locked anew.

        Raises:
            UserError: the folder was removed, renamed or replaced while the program ran, or another program
                has locked it; says where it is now.
        """
        if self._file.closed:
            return
        try:
            is_ours = _is_at(self._place, self.folder)
            if is_ours and _is_at(self._file.fileno(), self.path):
                return
            if is_ours and not os.path.lexists(self.path):
                lost, self._file = self._file, self._take()
                lost.close()
                say(f"the file {self.path} was removed while it was in use; the folder is locked anew")
                return
        except OSError as error:
            raise self._cannot_write(error) from error
        raise UserError(
            f"the {self._what} {self.folder} is no longer the one that this program has locked: "
            f"{self._whereabouts()}. Nothing is written where another may be writing, so this program ends"
        )

    def is_in_place(self) -> bool:
        """Whether the folder is the one that was locked, as far as the disk says."""
        try:
            return not self._file.closed and _is_at(self._place, self.folder)
        except OSError:
            return False

    def _whereabouts(self) -> str:
        """What has become of the folder, as far as the kernel knows."""
        if _is_at(self._place, self.folder):
            return f"another file has the place of {LOCK} in it"
        if os.fstat(self._file.fileno()).st_nlink == 0:
            there = ", and another folder has its place" if self.folder.exists() else ""
            return f"it was removed while it was in use{there}"
        with contextlib.suppress(OSError):
            now = Path(f"/proc/self/fd/{self._place}").readlink()
            return f"it was renamed while it was in use, and is {now} now"
        return "it was renamed while it was in use"

    def release(self) -> None:
        """Frees the folder. The lock file stays and has no effect; where it is all that there is, it and the
        folders that were made for it are removed."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError):
            if self._created and _is_at(self._file.fileno(), self.path) and _names(self.folder) == {LOCK}:
                self._remove_created()
        self._file.close()
        os.close(self._place)

    def _remove_created(self) -> None:
        for path in reversed(self._created):
            try:
                path.unlink() if path.name == LOCK and path == self.path else path.rmdir()
            except OSError:  # somebody else has put something there
                break

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _create_folders(folder: Path, created: list[Path]) -> None:
    """Makes a folder and those above it; the new ones go into `created`, outermost first."""
    missing = []
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            break
        missing.append(place)
    for place in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            place.mkdir()
            created.append(place)
    folder.mkdir(exist_ok=True)  # raises where something else has that name


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file or folder is the one under `path`; raises OSError where the disk does not say."""
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
