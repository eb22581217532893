"""Why a file cannot be written, and what helps: full, read-only, gone, too long, and others, in words."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

from siamtransfer.utils.errors import UserError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Nothing more fits on the disk, into the user's share of it, or into one file."""
LOST = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO})
"""The disk has failed or has gone away."""

_CURES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "your quota is used up: remove files, ask for more, or choose another folder",
    errno.EFBIG: "files may not be that large here: raise the limit (ulimit -f) or choose another folder",
    errno.EACCES: "it is not writable for you: choose another folder",
    errno.EPERM: "it is not writable for you: choose another folder",
    errno.EROFS: "the disk can only be read: choose another folder",
    errno.EIO: "the disk has failed: look at it (dmesg), or choose another folder",
    errno.ESTALE: "the network disk has lost the folder: mount it again, or choose another folder",
    errno.ENAMETOOLONG: "the path is too long for the disk: choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a file has the name of the folder: choose another folder",
    errno.EISDIR: "a folder has that name: choose another",
    errno.ELOOP: "its links lead to themselves: choose another folder",
    errno.ENOENT: "its folder has gone: was it removed or renamed?",
    errno.ENFILE: "the machine has too many open files: close some",
}
_OTHER = "free some space or choose another folder"


def cannot_write(path: str | Path, error: OSError) -> UserError:
    """The sentence `cannot write PATH: REASON; CURE` for an error of the system."""
    sentence = UserError(f"cannot write {path}: {why(path, error)}; {cure(path, error)}")
    sentence.__cause__ = error  # which says to callers whether the disk is full
    return sentence


def why(path: str | Path, error: OSError) -> str:
    """The reason in the system's words, with the free space where none was left."""
    reason = error.strerror or str(error) or type(error).__name__
    folder = _nearest_folder(Path(path))
    if error.errno not in FULL | LOST:
        return reason
    if is_out_of_inodes(folder, error):
        return f"{reason}: the disk takes no more files, whatever their size ({_free(folder)})"
    free = _free(folder)
    return f"{reason} ({free})" if free else reason


def cure(path: str | Path, error: OSError) -> str:
    """What the user can do about it."""
    if is_out_of_inodes(_nearest_folder(Path(path)), error):
        return "remove files (df -i counts them) or choose another folder"
    broken = _broken_link(Path(path))
    if broken is not None and error.errno in (errno.ENOENT, errno.EEXIST, errno.ELOOP, errno.ENOTDIR):
        return f"{broken} is a link to {broken.readlink()}, which does not exist: choose another folder"
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this process has {limit} files open, which is its limit: raise it (ulimit -n)"
    return _CURES.get(error.errno or 0, _OTHER)


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that nothing more fits."""
    return isinstance(error, OSError) and error.errno in FULL


def is_out_of_inodes(folder: Path, error: OSError) -> bool:
    """Whether the disk is full because it holds as many files as it can, and not as many bytes."""
    if error.errno != errno.ENOSPC:
        return False
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_files > 0 and disk.f_favail == 0 and disk.f_bavail > 0


def _free(folder: Path) -> str:
    """`3 MiB free`, of the bytes that are free for this user; empty where the disk does not say."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return ""
    return f"{disk.f_bavail * disk.f_frsize / 2**20:.0f} MiB free"


def _nearest_folder(path: Path) -> Path:
    """The innermost folder above `path` that exists."""
    for folder in path.absolute().parents:
        try:
            if folder.is_dir():
                return folder
        except OSError:  # a name that is too long
            continue
    return Path("/")


def _broken_link(path: Path) -> Path | None:
    """The path, or the folder above it, that is a link to nothing."""
    with contextlib.suppress(OSError):  # a name that is too long, or a folder that may not be read
        return next((place for place in (path, *path.parents) if _leads_nowhere(place)), None)
    return None


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
