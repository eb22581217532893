"""Fault 20: a run folder belongs to one living process, and one that cannot be written is refused at once."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest
from support.small_runs import before_step, complete, launch, send, steps_kept


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def announce_and_wait(announcement: Path, end: Path) -> None:
    announcement.touch()
    wait_for(end)


def test_fault_20_a_second_run_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    there, go = tmp_path / "there", tmp_path / "go"
    fault = functools.partial(before_step, 5, functools.partial(announce_and_wait, there, go))
    first = launch(tmp_path / "run", fault=fault)
    wait_for(there)
    for more in ([], ["--resume"]):
        second = launch(tmp_path / "run", *more)
        assert second.wait() == 2
        assert second.said.startswith(f"error: the run folder {tmp_path / 'run'} is in use by process ")
        assert f"process {first.process.pid} on" in second.said
    go.touch()
    assert first.wait() == 0
    assert steps_kept(tmp_path / "run") == [12, 15]


def test_fault_20_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    fault = functools.partial(before_step, 5, functools.partial(send, signal.SIGKILL))
    run = launch(tmp_path / "run", fault=fault)
    assert run.wait() == -signal.SIGKILL
    assert (run.folder / "lock").read_text().startswith(f"process {run.process.pid} ")
    complete(run.folder, "--resume")


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


@pytest.mark.parametrize("name", ["locked", "locked/new"])
def test_fault_20_a_folder_that_cannot_be_written_fails_before_the_first_batch(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    run = launch(tmp_path / "logs" / "run", f"--run.dir={tmp_path / name}", fault=become_nobody)
    assert run.wait() == 2
    assert run.said.startswith(f"error: cannot write to the run folder {tmp_path / name}: Permission denied")
    assert "steps 0 to" not in run.said


def test_fault_20_a_file_in_the_place_of_the_folder_fails_before_the_first_batch(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = launch(tmp_path / "logs" / "run", f"--run.dir={tmp_path / 'file' / 'run'}")
    assert run.wait() == 2
    assert run.said.startswith(f"error: cannot write to the run folder {tmp_path / 'file' / 'run'}: ")
