"""What killed writers leave behind is removed; what living ones write is not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import context

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text
from siamtransfer.utils.temporary import (
    ABANDONED_SECONDS,
    clean_beside,
    create_beside,
    temporary_folder,
    this_kernel,
)

pytestmark = pytest.mark.fault
OUT = "out.pkl"
OF_ANOTHER_MACHINE = f".{OUT}.0123456789abcdef.tmp"


def half_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def write_half(folder: Path, kind: str, begun: Any, end: Any) -> None:
    """Begins a file, or a folder of one, and waits; the file is open then, as that of a running program."""
    if kind == "file":
        with create_beside(folder / OUT) as file:
            file.write(b"half")
            file.flush()
            begun.set()
            end.wait(30)
        return
    with temporary_folder(folder / OUT) as new:
        (new / "part").write_text("half")
        begun.set()
        end.wait(30)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_two_writers_the_killed_one_is_cleaned_up_after(kind: str, tmp_path: Path) -> None:
    ends, processes = [], []
    for _ in range(2):
        begun, end = context().Event(), context().Event()
        process = context().Process(target=write_half, args=(tmp_path, kind, begun, end))
        process.start()
        assert begun.wait(30)
        ends.append(end)
        processes.append(process)
        if len(processes) == 1:
            first = half_files(tmp_path)
    both = half_files(tmp_path)
    assert len(both) == 2
    clean_beside(tmp_path / OUT)
    assert half_files(tmp_path) == both, "both writers live"
    os.kill(processes[0].pid or 0, signal.SIGKILL)
    processes[0].join(30)
    write_text(tmp_path / "another", "a start that writes another file touches nothing of it")
    assert half_files(tmp_path) == both
    write_text(tmp_path / OUT, "whole") if kind == "file" else clean_beside(tmp_path / OUT)
    assert half_files(tmp_path) == [name for name in both if name not in first]
    ends[1].set()
    processes[1].join(30)
    assert processes[1].exitcode == 0


@pytest.mark.parametrize("name", [OF_ANOTHER_MACHINE, f".{OUT}.4711.tmp"])
def test_a_file_of_another_machine_is_removed_when_nobody_has_changed_it_for_a_day(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("half")
    clean_beside(tmp_path / OUT)
    assert half_files(tmp_path) == [name]
    long_ago = time.time() - ABANDONED_SECONDS - 60
    os.utime(tmp_path / name, (long_ago, long_ago))
    clean_beside(tmp_path / OUT)
    assert half_files(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        f".{OUT}.tmp",
        f".{OUT}.{'0' * 15}.tmp",
        f".{OUT}.{'g' * 16}.tmp",
        f"{OUT}.{'0' * 16}.tmp",
        f".{OUT}x.{'0' * 16}.tmp",
        f".x{OUT}.{'0' * 16}.tmp",
    ],
)
def test_a_name_that_is_not_ours_is_never_removed(name: str, tmp_path: Path) -> None:
    name = name.replace("0" * 8, this_kernel(), 1)
    (tmp_path / name).write_text("somebody's")
    os.utime(tmp_path / name, (0, 0))
    clean_beside(tmp_path / OUT)
    assert (tmp_path / name).exists()


def test_a_pipe_or_a_link_of_our_name_does_not_hang_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / f".{OUT}.{this_kernel()}00000000.tmp").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / f".{OUT}.{this_kernel()}00000001.tmp")
    clean_beside(tmp_path / OUT)
    assert (tmp_path / "precious").read_text() == "x"


def test_a_folder_is_gone_after_an_error_and_the_error_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=rf"^cannot write {tmp_path}/{OUT}: Input/output error"),
        temporary_folder(tmp_path / OUT) as new,
    ):
        (new / "part").write_text("half")
        raise OSError(5, os.strerror(5))
    assert list(tmp_path.iterdir()) == []
