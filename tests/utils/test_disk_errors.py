"""The sentence for a file that cannot be written names the path, the reason and what helps."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from siamtransfer.utils.disk_errors import cannot_write
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text

pytestmark = pytest.mark.fault


def sentence(number: int, path: Path) -> str:
    return str(cannot_write(path, OSError(number, os.strerror(number))))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"No space left on device \(\d+ MiB free\); free some space or choose another folder"),
        (errno.EDQUOT, r"Disk quota exceeded \(\d+ MiB free\); your quota is used up: remove files, ask for"),
        (errno.EFBIG, r"File too large \(\d+ MiB free\); files may not be that large here: raise the limit"),
        (errno.EIO, r"Input/output error \(\d+ MiB free\); the disk has failed: look at it \(dmesg\), or"),
        (errno.EROFS, r"Read-only file system \(\d+ MiB free\); the disk can only be read: choose another"),
        (errno.ESTALE, r"Stale file handle \(\d+ MiB free\); the network disk has lost the folder: mount it"),
        (errno.EACCES, r"Permission denied; it is not writable for you: choose another folder"),
        (errno.ENAMETOOLONG, r"File name too long; the path is too long for the disk: choose a shorter one"),
        (errno.EMFILE, r"Too many open files; this process has \d+ files open, which is its limit: raise it"),
        (errno.ENFILE, r"Too many open files in system; the machine has too many open files: close some"),
        (errno.ENOENT, r"No such file or directory; its folder has gone: was it removed or renamed\?"),
        (errno.ENOMEM, r"Cannot allocate memory; free some space or choose another folder"),
    ],
)
def test_each_error_has_its_cure(number: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    start = f"cannot write {path}: "
    text = sentence(number, path)
    assert text.startswith(start)
    assert re.match(said, text.removeprefix(start)), text


def test_a_disk_without_inodes_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_files=40, f_favail=0, f_bavail=512, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    assert sentence(errno.ENOSPC, tmp_path / "a") == (
        f"cannot write {tmp_path}/a: No space left on device: the disk takes no more files, whatever their "
        "size (2 MiB free); remove files (df -i counts them) or choose another folder"
    )
    disk.f_favail = 1
    assert "free some space" in sentence(errno.ENOSPC, tmp_path / "a")
    disk.f_files = disk.f_favail = 0  # btrfs counts no inodes
    assert "free some space" in sentence(errno.ENOSPC, tmp_path / "a")


def test_the_parts_of_a_path_that_are_in_the_way_are_named(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"/gone is a link to .*/nowhere, which does not exist: choose another"
    ):
        write_text(tmp_path / "gone" / "file", "x")
    with pytest.raises(UserError, match=r"File name too long; the path is too long for the disk"):
        write_text(tmp_path / ("x" * 300), "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"Is a directory; a folder has that name: choose another"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "gone"]
