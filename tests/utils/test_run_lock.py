"""A folder belongs to one process, and only as long as it is the folder that was locked."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from support.small_runs import context

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.run_lock import RunLock

pytestmark = pytest.mark.fault


def try_lock(folder: Path) -> None:
    """Ends with status 3 when the folder is taken."""
    try:
        RunLock(folder).release()
    except UserError as error:
        assert "in use by process" in str(error)
        raise SystemExit(3) from error


def status_of_lock(folder: Path) -> int | None:
    process = context().Process(target=try_lock, args=(folder,))
    process.start()
    process.join(30)
    return process.exitcode


def test_a_lock_holds_against_other_processes_until_it_is_released(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run") as lock:
        assert f"process {os.getpid()} on" in lock.path.read_text()
    lock = RunLock(tmp_path / "run")
    assert status_of_lock(tmp_path / "run") == 3
    assert status_of_lock(tmp_path / "run") == 3, "a refused process leaves the lock alone"
    lock.release()
    assert status_of_lock(tmp_path / "run") == 0


def hold_and_fork(folder: Path) -> None:
    """Dies while a forked child, as a data-loader worker is, lives on for a while."""
    lock = RunLock(folder)
    if os.fork() == 0:
        os.close(1)
        os.read(os.open(folder / "pipe", os.O_RDONLY), 1)
        os._exit(0)
    os.kill(os.getpid(), 9)
    lock.release()


def test_a_dead_process_holds_nothing_even_if_its_workers_live(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = context().Process(target=hold_and_fork, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == -9
    assert status_of_lock(tmp_path) == 0
    (tmp_path / "pipe").write_bytes(b"end")


def test_a_disk_that_cannot_lock_is_not_mistaken_for_a_taken_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(UserError, match="cannot lock files"):
        RunLock(tmp_path)


def test_a_refused_folder_is_gone_with_those_that_were_made_for_it(tmp_path: Path) -> None:
    RunLock(tmp_path / "new" / "deep").release()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    RunLock(tmp_path / "kept" / "run").release()
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
    with RunLock(tmp_path / "used" / "run") as lock:
        assert lock.was_empty
        (tmp_path / "used" / "run" / "result").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "lock", "result", "run", "used"]
    with RunLock(tmp_path / "used" / "run") as lock:
        assert not lock.was_empty


def test_a_lock_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    RunLock(tmp_path).release()
    assert (tmp_path / "lock").exists()


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def removed_and_made_again(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "lock").write_text("process 1 on another machine\n")


def taken_by_another_lock(folder: Path) -> None:
    (folder / "lock").unlink()
    (folder / "lock").touch()


def put_below_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (removed, "it was removed while it was in use."),
        (renamed, "it was renamed while it was in use, and is {}/elsewhere now."),
        (removed_and_made_again, "it was removed while it was in use, and another folder has its place."),
        (taken_by_another_lock, "another file has the place of lock in it."),
        (put_below_a_file, "it was removed while it was in use, and another folder has its place."),
    ],
)
def test_a_folder_that_is_no_longer_there_is_noticed(
    change: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with RunLock(folder) as lock:
        lock.require_place()
        change(folder)
        with pytest.raises(UserError) as caught:
            lock.require_place()
    said = f"the run folder {folder} is no longer the one that this program has locked: {what}"
    assert str(caught.value).startswith(said.format(tmp_path))


def test_a_lock_that_alone_was_removed_is_taken_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLock(tmp_path) as lock:
        lock.path.unlink()
        with caplog.at_level("INFO"):
            lock.require_place()
        assert (
            f"the file {tmp_path}/lock was removed while it was in use; the folder is locked anew"
            in caplog.text
        )
        assert status_of_lock(tmp_path) == 3
        assert f"process {os.getpid()} on" in lock.path.read_text()  # which frees it, as any reading here
    assert status_of_lock(tmp_path) == 0


def test_a_lock_that_its_owner_removes_meanwhile_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, claims = RunLock._claim, 0

    def late(self: RunLock, file: IO[str]) -> None:
        nonlocal claims
        claims += 1
        if claims == 1:  # the last owner has released its folder after this one has opened the file
            self.path.unlink()
        claim(self, file)

    monkeypatch.setattr(RunLock, "_claim", late)
    with RunLock(tmp_path / "run"):
        assert claims == 2
        assert status_of_lock(tmp_path / "run") == 3


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file", r"File exists; a file has the name of the folder: choose another with --run\.dir"),
        ("file/run", r"Not a directory; a part of the path is a file: choose another with --run\.dir"),
        (
            "dangling",
            r"File exists; .*/dangling is a link to .*/nowhere, which does not exist: choose another",
        ),
        (
            "dangling/run",
            r"dangling is a link to .*/nowhere, which does not exist: choose another with --run\.dir",
        ),
        ("loop/run", r"its links lead to themselves|which does not exist"),
        (
            "x" * 300,
            r"File name too long; the path is too long for the disk: choose a shorter one, or choose",
        ),
        ("/".join(["x" * 200] * 25), r"File name too long; the path is too long for the disk"),
        ("odd/lock-is-a-folder", r"Is a directory; a folder has that name"),
    ],
)
def test_a_place_that_cannot_be_a_folder_is_refused_and_nothing_is_left(
    place: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "odd" / "lock-is-a-folder" / "lock").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=why) as caught:
        RunLock(tmp_path / place)
    assert str(caught.value).startswith(f"cannot write to the run folder {tmp_path / place}: ")
    assert sorted(tmp_path.rglob("*")) == before
