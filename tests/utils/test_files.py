"""Files that are whole or absent, several together, and digests."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import secrets
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import context

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import (
    FileGroup,
    atomic_write,
    digest_of_file,
    read_checked_text,
    write_checked_text,
    write_text,
)
from siamtransfer.utils.temporary import create_beside, is_temporary, temporary_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"some")
        assert not path.exists()
        assert [other.parent for other in tmp_path.rglob(".*")] == [path.parent], (
            "the sibling is on the same disk"
        )
        file.write(b"thing")
    assert path.read_bytes() == b"something"
    assert names(path.parent) == ["file.bin"]


def test_a_body_that_raises_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old ü")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        _ = 1 / 0
    assert path.read_text(encoding="utf-8") == "old ü"
    assert names(tmp_path) == ["file"]


def test_bytes_are_on_disk_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".")[-1])
        sync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_text(tmp_path / "file", "x")
    assert events == ["tmp", "rename", tmp_path.name]


def test_a_full_disk_is_told_with_path_and_free_space(tmp_path: Path) -> None:
    with (
        pytest.raises(
            UserError, match=rf"cannot write {tmp_path}/file: No space left on device \(\d+ MiB free\)"
        ),
        atomic_write(tmp_path / "file"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/below"):
        write_text(tmp_path / "file" / "below", "x")


def write_slowly(path: Path, letter: bytes, begun: Any, go_on: Any) -> None:
    """Writes 1,000 letters in two halves, as a process in a container where every process has number 7."""
    os.getpid = lambda: 7
    socket.gethostname = lambda: "container"
    with atomic_write(path) as file:
        file.write(letter * 500)
        file.flush()
        begun.set()
        go_on.wait(30)
        file.write(letter * 500)


def test_two_processes_of_one_number_do_not_publish_each_others_halves(tmp_path: Path) -> None:
    events = [(context().Event(), context().Event()) for _ in "ab"]
    processes = [
        context().Process(target=write_slowly, args=(tmp_path / "file", letter, *pair))
        for letter, pair in zip((b"a", b"b"), events, strict=True)
    ]
    for process, (begun, _) in zip(processes, events, strict=True):
        process.start()
        assert begun.wait(30)
    assert len([name for name in names(tmp_path) if is_temporary(name)]) == 2
    for process, (_, go_on), letter in zip(processes, events, (b"a", b"b"), strict=True):
        go_on.set()
        process.join(30)
        assert process.exitcode == 0
        assert (tmp_path / "file").read_bytes() == letter * 1000
    assert names(tmp_path) == ["file"]


def test_a_temporary_name_that_exists_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(["0" * 8, "0" * 8, "1" * 8])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(numbers))
    with create_beside(tmp_path / "file") as half:
        other = Path(half.name)
        half.write(b"another process's half")
        half.flush()
        write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"
    assert other.read_bytes() == b"another process's half"


def test_names_of_killed_processes_are_known(tmp_path: Path) -> None:
    assert is_temporary(temporary_path(tmp_path / "a.pth").name)
    assert is_temporary(".a.pth.123.tmp"), "of an older version"
    assert not any(map(is_temporary, (".a.tmp", "a.pth.123.tmp", ".a.pth.xyz.tmp", "a.pth")))


def test_a_checked_text_comes_back_or_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_checked_text(path, "ü")
    write_checked_text(path, "äö")
    assert read_checked_text(path) == "äö"
    assert names(tmp_path) == ["a.json", "a.json.sha256"]
    assert subprocess.run(["sha256sum", "-c", "a.json.sha256"], cwd=tmp_path, check=True)
    path.write_text("äx", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"is damaged: its bytes do not match the checksum in a\.json\.sha256"
    ):
        read_checked_text(path)
    (tmp_path / "a.json.sha256").unlink()
    assert read_checked_text(path) == "äx", "older versions wrote no checksum"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="no UTF-8"):
        read_checked_text(path)


def test_digest_of_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert digest_of_file(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def changed_by_a_group(folder: Path) -> dict[str, str]:
    """Writes a.json and a.npz together, and returns what is there then."""
    with FileGroup() as files:
        files.open(folder / "a.json").write(b"new json")
        files.open(folder / "a.npz").write(b"new npz")
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_group_appears_together_the_first_opened_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    rename = Path.replace

    def note_rename(self: Path, target: Path) -> Path:
        order.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", note_rename)
    assert changed_by_a_group(tmp_path) == {"a.json": "new json", "a.npz": "new npz"}
    assert order == ["a.npz", "a.json"]


@pytest.mark.fault
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("before", [{}, {"a.npz": "old npz"}, {"a.json": "old json", "a.npz": "old npz"}])
def test_a_group_whose_rename_fails_leaves_everything_as_it_was(
    number: int, before: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    rename, renamed = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal renamed
        renamed += target.name.startswith("a")
        if renamed == number:
            renamed += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    which = ("a.npz", "a.json")[number - 1]
    with pytest.raises(UserError, match=rf"^cannot write .*/{which}: No space left on device"):
        changed_by_a_group(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.fault
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("before", [{}, {"a.npz": "old npz"}, {"a.json": "old json", "a.npz": "old npz"}])
def test_a_signal_right_behind_a_rename_leaves_everything_as_it_was(
    number: int, before: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    rename, renamed = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal renamed
        renamed += 1
        rename(self, target)
        if renamed == number:
            raise KeyboardInterrupt
        return target

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        changed_by_a_group(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.fault
def test_a_group_of_which_one_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    """The kernel takes 1,000 bytes a file; the record is larger, its predictions are not."""
    process = context().Process(target=write_group_in_small_files, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 3
    assert names(tmp_path) == []


def write_group_in_small_files(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        with FileGroup() as files:
            files.open(folder / "a.json").write(b"x" * 2000)
            files.open(folder / "a.npz").write(b"x" * 500)
    except UserError as error:
        assert str(error).startswith(f"cannot write {folder / 'a.json'}: File too large ("), error
        assert str(error).endswith("raise the limit (ulimit -f) or choose another folder"), error
        raise SystemExit(3) from error


@pytest.mark.fault
def test_what_a_library_makes_of_a_full_disk_is_told_by_the_disks_error(tmp_path: Path) -> None:
    """torch.save raises a RuntimeError about positions where a file takes no more."""
    process = context().Process(target=save_in_small_files, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 3
    assert names(tmp_path) == []


def save_in_small_files(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        with atomic_write(folder / "a.pth") as file:
            torch.save({"weight": torch.zeros(10_000)}, file)
    except UserError as error:
        assert str(error).startswith(f"cannot write {folder / 'a.pth'}: File too large ("), error
        assert type(error.__cause__) is OSError
        raise SystemExit(3) from error
